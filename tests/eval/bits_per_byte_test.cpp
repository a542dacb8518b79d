// SPDX-License-Identifier: MIT
#include "core/eval/bits_per_byte.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"

using namespace bitnet;

namespace {

constexpr std::int64_t kContext = 16;

ModelConfig tiny_config() {
  ModelConfig config;
  config.hidden_size = 64;
  config.intermediate_size = 64;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.max_position_embeddings = kContext;
  config.initializer_range = 0.5;  // predictions far from uniform
  return config;
}

std::vector<std::uint8_t> sample_text(std::size_t size) {
  std::vector<std::uint8_t> text(size);
  const RandomStream random{7, RandomPurpose::test, 0};
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<std::uint8_t>(random.below(i, 256));
  return text;
}

struct TinyModel {
  explicit TinyModel(int threads = 1)
      : backend(make_cpu_backend(threads)), model(*backend, tiny_config(), WeightForm::latent) {
    model.initialize(3);
  }
  std::unique_ptr<Backend> backend;
  Transformer model;
};

EvalOptions with(std::int64_t context, std::int64_t stride, std::int64_t batch = 8) {
  EvalOptions options;
  options.context = context;
  options.stride = stride;
  options.batch = batch;
  return options;
}

}  // namespace

TEST_CASE("windows score each byte once, in order, and are never longer than the context") {
  for (std::int64_t bytes = 0; bytes <= 40; ++bytes) {
    for (std::int64_t context = 1; context <= 9; ++context) {
      for (std::int64_t stride = 1; stride <= context; ++stride) {
        std::int64_t scored = 0;
        for (const EvalWindow& w : plan_windows(bytes, context, stride)) {
          REQUIRE(w.first_scored == scored);
          REQUIRE(w.end > scored);
          REQUIRE(w.begin >= 0);
          REQUIRE(w.begin <= w.first_scored);
          REQUIRE(w.end - w.begin == std::min(context, bytes));
          REQUIRE((scored == 0 || w.end - w.first_scored <= stride));
          scored = w.end;
        }
        REQUIRE(scored == bytes);
      }
    }
  }
}

TEST_CASE("windows after the first score their last stride positions") {
  CHECK(plan_windows(21, 8, 4) ==
        std::vector<EvalWindow>{{0, 8, 0}, {4, 12, 8}, {8, 16, 12}, {12, 20, 16}, {13, 21, 20}});
  CHECK(plan_windows(5, 8, 4) == std::vector<EvalWindow>{{0, 5, 0}});
  CHECK_THROWS_AS(plan_windows(5, 8, 9), ContractError);
}

TEST_CASE("evaluation scores a text as the model predicts it byte by byte") {
  TinyModel tiny;
  const auto text = sample_text(kContext);
  const EvalResult result = evaluate(tiny.model, text);

  Activations activations(*tiny.backend, tiny.model.config(), 1, kContext, Keep::nothing);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(kContext), 0);
  for (std::size_t i = 1; i < tokens.size(); ++i) tokens[i] = text[i - 1];
  Tensor input = tiny.backend->make_tensor(DType::i32, {1, kContext});
  tiny.backend->copy_from_host(tokens.data(), input);
  std::vector<float> logits(static_cast<std::size_t>(kContext * 256));
  tiny.backend->copy_to_host(tiny.model.forward(input, activations), logits.data());
  double nats = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    double sum = 0;
    for (std::size_t v = 0; v < 256; ++v) sum += std::exp(static_cast<double>(logits[i * 256 + v]));
    nats += std::log(sum) - static_cast<double>(logits[i * 256 + text[i]]);
  }
  // Each loss is an fp32 number below 128 computed by a few roundings: 16 · 8 · 128 · 2^-24 bounds
  // their sum.
  CHECK(std::abs(result.nats - nats) <= 1e-3);
  CHECK(result.bytes == kContext);
  CHECK(result.bits_per_byte == result.nats / static_cast<double>(kContext) / std::numbers::ln2);
  CHECK(result.perplexity == std::exp(result.nats / static_cast<double>(kContext)));
  CHECK(result.nats > 0);
}

TEST_CASE("token ids past the bytes take their share of the probability") {
  TinyModel tiny;
  ModelConfig config = tiny_config();
  config.vocab_size = 320;
  config.tie_word_embeddings = false;
  Transformer wide(*tiny.backend, config, WeightForm::latent);
  wide.initialize(3);
  const auto head = wide.parameters().at("lm_head.weight").value.as<float>();
  std::fill(head.begin(), head.end(), 0.0f);  // all ids are equally likely
  // The logarithm of 320 rounds to fp32, and so does each loss.
  CHECK(std::abs(evaluate(wide, sample_text(50)).bits_per_byte - std::log2(320.0)) <= 1e-5);
  config.vocab_size = 255;
  Transformer narrow(*tiny.backend, config, WeightForm::latent);
  CHECK_THROWS_AS(evaluate(narrow, sample_text(50)), UsageError);
}

TEST_CASE("the batch size and the number of threads change no bit of an evaluation") {
  TinyModel one(1), two(2);
  const auto text = sample_text(101);
  const DType kv_cache = GENERATE(DType::f32, DType::f16);
  const auto nats = [&](TinyModel& tiny, std::int64_t batch) {
    EvalOptions options = with(0, 5, batch);
    options.kv_cache = kv_cache;
    return evaluate(tiny.model, text, options).nats;
  };
  const double expected = nats(one, 1);
  for (const std::int64_t batch : {2, 3, 8, 100}) {
    CHECK(nats(one, batch) == expected);
    CHECK(nats(two, batch) == expected);
  }
}

TEST_CASE("the stride does not matter when one window holds the whole text") {
  TinyModel tiny;
  const auto text = sample_text(kContext - 3);
  const double expected = evaluate(tiny.model, text).nats;
  for (const std::int64_t stride : {1, 7, 16})
    CHECK(evaluate(tiny.model, text, with(0, stride)).nats == expected);
}

TEST_CASE("the stride and the context decide what a byte is predicted from") {
  TinyModel tiny;
  const auto text = sample_text(64);
  CHECK(evaluate(tiny.model, text, with(16, 4)).nats !=
        evaluate(tiny.model, text, with(16, 16)).nats);
  CHECK(evaluate(tiny.model, text, with(8, 4)).nats !=
        evaluate(tiny.model, text, with(16, 4)).nats);
}

TEST_CASE("evaluation with fp16 keys and values scores what is generated from such a cache") {
  TinyModel tiny;
  Backend& backend = *tiny.backend;
  tiny.model.use_head(GENERATE(HeadPrecision::int8, HeadPrecision::fp32));
  const auto text = sample_text(kContext);
  const TextLogits halves = first_logits(tiny.model, text, DType::f16);
  Activations activations(backend, tiny.model.config(), 1, 1, Keep::nothing);
  KvCache cache(backend, tiny.model.config(), kContext, DType::f16);
  Tensor token = backend.make_tensor(DType::i32, {1, 1}),
         loss = backend.make_tensor(DType::f32, {1});
  double nats = 0;
  for (std::size_t t = 0; t < text.size(); ++t) {
    backend.copy_from_host(&halves.inputs[t], token);
    const TensorView logits = tiny.model.extend(token, cache, activations);
    std::vector<float> row(256);
    backend.copy_to_host(logits, row.data());
    CHECK(std::equal(row.begin(), row.end(), halves.logits.begin() + std::ptrdiff_t(256 * t)));
    const std::int32_t target = text[t];
    backend.copy_from_host(&target, token);
    backend.cross_entropy(logits, token.view().reshaped({1}), loss, 1.0f, {});
    float nat = 0;
    backend.copy_to_host(loss, &nat);
    nats += static_cast<double>(nat);
  }
  EvalOptions options;
  options.kv_cache = DType::f16;
  CHECK(evaluate(tiny.model, text, options).nats == nats);
  CHECK(nats != evaluate(tiny.model, text).nats);
}

TEST_CASE("keys and values are rounded only where no backward pass follows") {
  TinyModel tiny;
  const auto make = [&](Keep keep, DType kv_cache) {
    Activations(*tiny.backend, tiny.model.config(), 1, 4, keep, false, DType::f32, kv_cache);
  };
  CHECK_NOTHROW(make(Keep::nothing, DType::f16));
  CHECK_THROWS_AS(make(Keep::everything, DType::f16), ContractError);
  CHECK_THROWS_AS(make(Keep::nothing, DType::bf16), ContractError);
}

TEST_CASE("evaluation reports its progress up to the last byte") {
  TinyModel tiny;
  const auto text = sample_text(50);
  std::vector<std::int64_t> done;
  EvalOptions options = with(16, 8, 2);
  options.progress = [&](std::int64_t bytes) { done.push_back(bytes); };
  evaluate(tiny.model, text, options);
  CHECK(done == std::vector<std::int64_t>{24, 40, 50});
}

TEST_CASE("evaluation refuses what it cannot do, and says the range") {
  TinyModel tiny;
  const auto text = sample_text(20);
  CHECK_THROWS_AS(evaluate(tiny.model, {}), Error);
  CHECK_THROWS_AS(evaluate(tiny.model, text, with(17, 1)), UsageError);
  CHECK_THROWS_AS(evaluate(tiny.model, text, with(-1, 1)), UsageError);
  CHECK_THROWS_AS(evaluate(tiny.model, text, with(8, 9)), UsageError);
  CHECK_THROWS_AS(evaluate(tiny.model, text, with(8, -1)), UsageError);
  CHECK_THROWS_AS(evaluate(tiny.model, text, with(8, 4, 0)), UsageError);
}

TEST_CASE("the first logits are those that score the first window, after byte 0") {
  TinyModel tiny;
  const std::vector<std::uint8_t> text = sample_text(40);
  const TextLogits first = first_logits(tiny.model, text);
  REQUIRE(first.inputs.size() == static_cast<std::size_t>(kContext));
  CHECK(first.inputs[0] == 0);
  double nats = 0;
  for (std::size_t p = 0; p < first.inputs.size(); ++p) {
    if (p > 0) CHECK(first.inputs[p] == text[p - 1]);
    double sum = 0;
    const float* logits = first.logits.data() + p * 256;
    for (int v = 0; v < 256; ++v) sum += std::exp(static_cast<double>(logits[v]));
    nats += std::log(sum) - static_cast<double>(logits[text[p]]);
  }
  const std::span<const std::uint8_t> window = std::span(text).first(first.inputs.size());
  CHECK(std::abs(evaluate(tiny.model, window).nats - nats) <= 1e-4 * nats);
}
