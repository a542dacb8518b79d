// SPDX-License-Identifier: MIT
// Evaluation of texts whose tokens are no bytes.
#include <cmath>
#include <numbers>

#include "core/cpu/cpu_backend.h"
#include "core/eval/bits_per_byte.h"
#include "tests/support/catch.h"
#include "tests/support/pair_tokenizer.h"

using namespace bitnet;

namespace {

constexpr std::int64_t kContext = 16, kVocabulary = 520;  // some ids more than the tokenizer's 512

ModelConfig token_config() {
  ModelConfig config;
  config.vocab_size = kVocabulary;
  config.hidden_size = 64;
  config.intermediate_size = 64;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.max_position_embeddings = kContext;
  config.initializer_range = 0.5;
  return config;
}

struct TokenModel {
  TokenModel() : backend(make_cpu_backend(1)), model(*backend, token_config(), WeightForm::latent) {
    model.initialize(3);
    model.refresh_quantized();
  }

  // -ln p of ids[first], … after all ids before them, in one pass.
  double nats(const std::vector<std::int32_t>& ids, std::size_t first) {
    const auto length = static_cast<std::int64_t>(ids.size()) - 1;
    Activations activations(*backend, model.config(), 1, length, Keep::nothing);
    Tensor input = backend->make_tensor(DType::i32, {1, length});
    backend->copy_from_host(ids.data(), input);
    std::vector<float> logits(static_cast<std::size_t>(length * kVocabulary));
    backend->copy_to_host(model.forward(input, activations), logits.data());
    double sum = 0;
    for (std::size_t i = first; i < ids.size(); ++i) {
      const float* row = logits.data() + (i - 1) * kVocabulary;
      double whole = 0;
      for (std::int64_t v = 0; v < kVocabulary; ++v) whole += std::exp(static_cast<double>(row[v]));
      sum += std::log(whole) - static_cast<double>(row[ids[i]]);
    }
    return sum;
  }

  std::unique_ptr<Backend> backend;
  Transformer model;
};

std::vector<std::int32_t> some_ids(std::size_t count) {
  const RandomStream random{7, RandomPurpose::test, 0};
  std::vector<std::int32_t> ids(count);
  for (std::size_t i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>(random.below(i, 510));
  return ids;
}

}  // namespace

TEST_CASE("bits per byte of tokens are their nats over the bytes they stand for") {
  TokenModel tiny;
  const test::PairTokenizer tokenizer;
  const std::vector<std::int32_t> ids = some_ids(12);
  const auto bytes = static_cast<std::int64_t>(tokenizer.decode(ids).size());
  REQUIRE(bytes > 12);
  const EvalResult result = evaluate(tiny.model, EvalText(tokenizer, ids, bytes));
  std::vector<std::int32_t> with_start = ids;
  with_start.insert(with_start.begin(), test::PairTokenizer::kStart);
  // Each loss is an fp32 number below 128 computed by a few roundings: 12 · 8 · 128 · 2^-24.
  CHECK(std::abs(result.nats - tiny.nats(with_start, 1)) <= 1e-3);
  CHECK(result.tokens == 12);
  CHECK(result.bytes == bytes);
  CHECK(result.bits_per_byte == result.nats / static_cast<double>(bytes) / std::numbers::ln2);
  CHECK(result.perplexity == std::exp(result.nats / 12));
}

TEST_CASE("a text that begins with its start token is scored as one without it") {
  TokenModel tiny;
  const test::PairTokenizer tokenizer;
  std::vector<std::int32_t> ids = some_ids(40);
  const EvalResult plain = evaluate(tiny.model, EvalText(tokenizer, ids, 60));
  ids.insert(ids.begin(), test::PairTokenizer::kStart);
  const EvalResult begun = evaluate(tiny.model, EvalText(tokenizer, ids, 60));
  CHECK(begun.nats == plain.nats);
  CHECK(begun.tokens == plain.tokens);
  CHECK(begun.bits_per_byte == plain.bits_per_byte);
}

TEST_CASE("without a start token the first token is only what the others follow") {
  TokenModel tiny;
  const test::PairTokenizer tokenizer(/*has_start=*/false);
  std::vector<std::int32_t> ids = some_ids(11);
  ids[0] = test::PairTokenizer::kFirstPair;  // two bytes
  const EvalResult result = evaluate(tiny.model, EvalText(tokenizer, ids, 20));
  CHECK(std::abs(result.nats - tiny.nats(ids, 1)) <= 1e-3);
  CHECK(result.tokens == 10);
  CHECK(result.bytes == 18);
}

TEST_CASE("windows over tokens score as windows over bytes do") {
  TokenModel tiny;
  const RandomStream random{9, RandomPurpose::test, 0};
  std::vector<std::uint8_t> text(77);
  for (std::size_t i = 0; i < text.size(); ++i)
    text[i] = static_cast<std::uint8_t>(random.below(i, 256));
  const std::vector<std::int32_t> ids(text.begin(), text.end());
  EvalText as_tokens(*byte_tokenizer(), ids, 77);
  for (const std::int64_t stride : {3, 8, 16}) {
    EvalOptions options;
    options.stride = stride;
    options.batch = 3;
    CHECK(evaluate(tiny.model, as_tokens, options).nats ==
          evaluate(tiny.model, text, options).nats);
  }
}

TEST_CASE("a model with fewer ids than the tokenizer is refused") {
  const auto backend = make_cpu_backend(1);
  ModelConfig config = token_config();
  config.vocab_size = 511;
  Transformer model(*backend, config, WeightForm::latent);
  CHECK_THROWS_AS(evaluate(model, EvalText(test::PairTokenizer(), some_ids(5), 5)), UsageError);
}

TEST_CASE("fewer windows at once where a vocabulary is large") {
  ModelConfig config = token_config();
  CHECK(eval_batch(config, 8, 16) == 8);
  config.vocab_size = 128256;
  CHECK(eval_batch(config, 8, 256) == 2);
  CHECK(eval_batch(config, 8, 4096) == 1);
}
