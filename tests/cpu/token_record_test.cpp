// SPDX-License-Identifier: MIT
// A decoded token has the same bits whether its operations are issued or kept ones run.
#include "core/base/error.h"
#include "core/cpu/cpu_backend.h"
#include "core/model/activations.h"
#include "tests/support/catch.h"
#include "tests/support/threads.h"
#include "tests/support/tiny_configs.h"
#include "tests/train/forwarding_backend.h"

namespace bitnet {
namespace {

using test::floats_of;

constexpr std::int64_t kTokens = 6;

// Wide enough that a token's operations have tasks for several threads.
ModelConfig wide_config() {
  ModelConfig config = test::tiny_config("b158");
  config.hidden_size = 512;
  config.intermediate_size = 768;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.max_position_embeddings = 256;
  return config;
}

// Extends a cache by one token after another, each from the same tensor.
class Continuation {
 public:
  Continuation(Backend& backend, const ModelConfig& config, HeadPrecision head, DType kv_cache)
      : backend_(backend),
        model_(backend, config, 1),
        cache_(backend, config, config.max_position_embeddings, kv_cache),
        activations_(backend, config, 1, config.max_position_embeddings, Keep::nothing, true) {
    model_.use_head(head);
  }

  std::vector<float> next(std::int32_t token) {
    backend_.copy_from_host(&token, token_);
    return floats_of(backend_, model_.extend(token_, cache_, activations_));
  }
  // Behind a prompt of so many tokens, or back there.
  void start_at(std::int64_t tokens) {
    cache_.clear();
    if (prompt_ == tokens) return cache_.advance(tokens);
    prompt_ = tokens;
    const Tensor prompt = test::to_device(
        backend_, {1, tokens}, test::random_tokens(9, tokens, model_.config().vocab_size));
    model_.extend(prompt, cache_, activations_);
  }

 private:
  Backend& backend_;
  test::TinyModel model_;
  KvCache cache_;
  Activations activations_;
  Tensor token_ = backend_.make_tensor(DType::i32, {1, 1});
  std::int64_t prompt_ = 0;
};

// Makes a backend's scratch larger than it ever was: `wider` columns a row.
void need_more_scratch(Backend& backend, std::int64_t wider) {
  Tensor gate = backend.make_tensor(DType::f32, {1, wider}),
         codes = backend.make_tensor(DType::i8, {1, wider}),
         scale = backend.make_tensor(DType::f32, {1});
  backend.gated_activation_quantize(Activation::silu, gate, gate, {}, codes, scale, {});
}

// Times that a sequence is issued: to learn what its products read, and to keep its operations.
constexpr std::int64_t kIssued = 2;

TEST_CASE("tokens whose operations are kept have the bits of those that are issued", "[model]") {
  std::vector<ModelConfig> configs = test::tiny_configs();
  configs.push_back(wide_config());
  ModelConfig many_heads = wide_config();  // more for a key head than are worked on together
  many_heads.num_attention_heads = 32;
  many_heads.num_key_value_heads = 1;
  configs.push_back(many_heads);
  std::int64_t wider = 4096;
  for (const int threads : test::team_sizes({1, 2, 3})) {
    const auto cpu = make_cpu_backend(threads);
    for (const ModelConfig& config : configs) {
      for (const HeadPrecision head : {HeadPrecision::fp32, HeadPrecision::int8}) {
        for (const DType kv_cache : {DType::f32, DType::f16}) {
          INFO(test::describe(config) << ", hidden size " << config.hidden_size << ", "
                                      << to_string(kv_cache) << ", threads " << threads);
          test::RepeatingBackend keeping(*cpu, true), issuing(*cpu, false);
          Continuation kept(keeping, config, head, kv_cache),
              issued(issuing, config, head, kv_cache);
          // Kept tokens go over the end of a tile of keys, or of a group, and then begin again.
          for (const std::int64_t tokens : {kTokens, std::int64_t{2}}) {
            for (Continuation* c : {&kept, &issued}) {
              c->start_at(config.hidden_size > 64 ? 60 : 12);
            }
            for (std::int64_t t = 0; t < tokens; ++t) {
              const auto token = static_cast<std::int32_t>((7 * t + tokens) % config.vocab_size);
              CHECK(kept.next(token) == issued.next(token));
              if (t == 3) need_more_scratch(*cpu, wider += 64);
            }
          }
          const bool unkept = config.num_attention_heads == 32;
          CHECK(keeping.issued == (unkept ? kTokens + 2 : kIssued));
          CHECK(issuing.issued == kTokens + 2);
        }
      }
    }
  }
}

TEST_CASE("a token that is refused leaves what is kept as it was", "[model]") {
  const auto cpu = make_cpu_backend(2);
  const ModelConfig config = test::tiny_config("b158");
  const std::int64_t bad = GENERATE(0, 1, 4);  // the first, while it is kept, afterwards
  test::RepeatingBackend keeping(*cpu, true), issuing(*cpu, false);
  Continuation kept(keeping, config, HeadPrecision::fp32, DType::f16),
      issued(issuing, config, HeadPrecision::fp32, DType::f16);
  for (std::int64_t t = 0; t < kTokens; ++t) {
    const auto token = static_cast<std::int32_t>(t);
    if (t == bad)
      CHECK_THROWS_AS(kept.next(static_cast<std::int32_t>(config.vocab_size)), ContractError);
    CHECK(kept.next(token) == issued.next(token));
  }
  CHECK(keeping.issued == kIssued + (bad < 2 ? 1 : 0));
}

TEST_CASE("a sequence with an operation that cannot be kept is issued each time") {
  const auto cpu = make_cpu_backend(2);
  Tensor x = cpu->make_tensor(DType::f32, {4}), half = cpu->make_tensor(DType::f16, {4}),
         sum = cpu->make_tensor(DType::f32, {4});
  std::unique_ptr<RecordedOperations> record;
  int calls = 0;
  std::vector<float> expected(4, 0.0f);
  for (int time = 0; time < 5; ++time) {
    const std::vector<float> values(4, static_cast<float>(time + 1));
    for (float& e : expected) e += 2 * values[0];
    cpu->copy_from_host(values.data(), x);
    cpu->repeat(record, time, [&] {
      ++calls;
      cpu->add(sum, x, sum);
      cpu->convert(x, half);
      cpu->zero(x);
      cpu->convert(half, x);
      cpu->add(sum, x, sum);
    });
    CHECK(floats_of(*cpu, sum) == expected);
  }
  CHECK(calls == 5);
}

}  // namespace
}  // namespace bitnet
