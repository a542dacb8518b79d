// SPDX-License-Identifier: MIT
// What must not change a single bit of a model on the CPU: the number of threads, the instruction set.
#include "core/bench/bench_configs.h"
#include "core/bench/synthetic_model.h"
#include "core/cpu/cpu_backend.h"
#include "core/model/activations.h"
#include "tests/support/catch.h"
#include "tests/support/threads.h"
#include "tests/support/tiny_configs.h"
#include "tests/support/tiny_trainer.h"

using namespace bitnet;
using namespace bitnet::test;

namespace {

constexpr std::int64_t kLength = 24;

// Logits of single tokens behind a prompt, twice the same: after the first tokens their operations
// are kept (Backend::repeat). Wide enough that operations have tasks for several threads.
std::vector<float> continued_logits(Backend& backend, int threads, DType kv_cache) {
  ModelConfig config = bench_inference_config().model;
  config.num_hidden_layers = 2;
  const std::int64_t prompt = 70, singles = 4;
  const auto model = make_synthetic_model(backend, config, ThreadTeam(threads));
  model->use_head(HeadPrecision::int8);
  KvCache cache(backend, config, prompt + singles, kv_cache);
  Activations activations(backend, config, 1, prompt, Keep::nothing);
  const std::vector<std::int32_t> ids = random_tokens(1, prompt + singles, 256);
  Tensor tokens = backend.make_tensor(DType::i32, {1, prompt + singles});
  backend.copy_from_host(ids.data(), tokens.view());
  model->extend(tokens.view().reshaped({prompt + singles}).rows(0, prompt).reshaped({1, prompt}),
                cache, activations);
  // One tensor for all of them, without which nothing would be repeated.
  Tensor single = backend.make_tensor(DType::i32, {1, 1});
  std::vector<float> logits;
  for (int time = 0; time < 2; ++time) {
    cache.clear();
    cache.advance(prompt);
    for (std::int64_t t = prompt; t < prompt + singles; ++t) {
      backend.copy_from_host(&ids[static_cast<std::size_t>(t)], single.view());
      const auto row = model->extend(single.view(), cache, activations).as<float>();
      logits.insert(logits.end(), row.begin(), row.end());
    }
  }
  return logits;
}

}  // namespace

TEST_CASE("logits and gradients are the same bits with one thread and with two", "[model]") {
  for (const ModelConfig& config : tiny_configs()) {
    INFO(describe(config));
    std::vector<std::vector<float>> logits, gradients[2];
    for (const int threads : {1, 2}) {
      const auto backend = make_cpu_backend(threads);
      TinyModel model(*backend, config, 1);
      const Batch batch = random_batch(1, 2, kLength, 32);
      logits.push_back(logits_of(model, batch.tokens, 2));
      TinyTrainer trainer(model, 2, kLength);
      trainer.gradients(batch);
      for (const Parameter& p : model.parameters().all())
        gradients[threads - 1].push_back(floats_of(*backend, p.gradient));
    }
    CHECK(logits[0] == logits[1]);
    CHECK((gradients[0] == gradients[1]));
  }
}

TEST_CASE("logits are the same bits on every ISA", "[model]") {
  for (const ModelConfig& config : tiny_configs()) {
    INFO(describe(config));
    std::vector<std::vector<float>> logits;
    for (const std::string& isa : available_cpu_isas()) {
      const auto backend = make_cpu_backend(1, isa);
      TinyModel model(*backend, config, 1);
      logits.push_back(logits_of(model, random_tokens(1, 2 * kLength, 32), 2));
      INFO(isa);
      CHECK((logits.back() == logits.front()));
    }
  }
}

TEST_CASE("logits of single tokens are the same bits for any team, on every ISA and each time",
          "[model]") {
  for (const DType kv_cache : {DType::f32, DType::f16}) {
    const std::vector<float> expected =
        continued_logits(*make_cpu_backend(1, "scalar"), 1, kv_cache);
    const auto middle = expected.begin() + static_cast<std::ptrdiff_t>(expected.size() / 2);
    CHECK((std::vector<float>(expected.begin(), middle) ==
           std::vector<float>(middle, expected.end())));
    for (const std::string& isa : available_cpu_isas()) {
      for (const int threads : team_sizes({1, 2, 3})) {
        INFO(isa << ", " << threads << " threads");
        const auto backend = make_cpu_backend(threads, isa);
        CHECK((continued_logits(*backend, threads, kv_cache) == expected));
      }
    }
  }
}
