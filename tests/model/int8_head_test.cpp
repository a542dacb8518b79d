// SPDX-License-Identifier: MIT
// The output head in int8.
#include <memory>

#include "core/quant/ternary.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/tiny_model.h"

using namespace bitnet;
using namespace bitnet::test;

namespace {

constexpr std::int64_t kLength = 16;  // few queries, for every backend's attention

ModelConfig config_of(bool tied) {
  ModelConfig config = tiny_config("b158");
  config.tie_word_embeddings = tied;
  return config;
}

}  // namespace

TEST_CASE("an int8 head is the product of its rounded rows with the rounded final norm",
          "[model]") {
  const auto backend = default_backend().make();
  const ModelConfig config = config_of(GENERATE(true, false));
  TinyModel model(*backend, config, 1);
  const auto tokens = random_tokens(1, kLength, 32);
  Activations activations(*backend, config, 1, kLength, Keep::nothing);
  const Tensor input = to_device(*backend, {1, kLength}, tokens);
  model.forward(input, activations);
  const auto normed = floats_of(*backend, activations.final_normed);
  const auto head = floats_of(
      *backend, model.parameters()
                    .at(config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight")
                    .value);

  const auto width = static_cast<std::size_t>(config.hidden_size);
  std::vector<std::int8_t> x(width), w(width);
  std::vector<float> expected;
  for (std::size_t t = 0; t < normed.size(); t += width) {
    const float token_scale = quantize_token(std::span(normed).subspan(t, width), x);
    for (std::size_t n = 0; n < head.size(); n += width) {
      const float row_scale = quantize_token(std::span(head).subspan(n, width), w);
      std::int32_t sum = 0;
      for (std::size_t k = 0; k < width; ++k) sum += x[k] * w[k];
      expected.push_back((token_scale * row_scale) * static_cast<float>(sum));
    }
  }
  model.use_head(HeadPrecision::int8);
  CHECK(model.head_precision() == HeadPrecision::int8);
  CHECK(logits_of(model, tokens, 1) == expected);
}

TEST_CASE("an int8 head gives the same logits packed, in pieces, in a batch, elsewhere",
          "[model]") {
  const auto backend = default_backend().make(), other = test_backends().back().make();
  const ModelConfig config = config_of(true);
  TinyModel model(*backend, config, 2), elsewhere(*other, config, 2);
  PackedTwin packed(model);
  for (Transformer* each :
       {static_cast<Transformer*>(&model), static_cast<Transformer*>(&elsewhere),
        static_cast<Transformer*>(&packed)})
    each->use_head(HeadPrecision::int8);
  auto tokens = random_tokens(3, 2 * kLength, 32);
  const auto both = logits_of(model, tokens, 2);
  CHECK(logits_of(elsewhere, tokens, 2) == both);
  CHECK(logits_of(packed, tokens, 2) == both);

  tokens.resize(kLength);
  const auto one = logits_of(model, tokens, 1);
  CHECK(one == std::vector<float>(both.begin(), both.begin() + kLength * 32));
  Activations activations(*backend, config, 1, kLength, Keep::nothing);
  KvCache cache(*backend, config, kLength);
  for (std::int64_t t = 0; t < kLength; ++t) {
    const Tensor token = to_device(*backend, {1, 1}, std::vector{tokens[std::size_t(t)]});
    CHECK(floats_of(*backend, model.extend(token, cache, activations)) ==
          std::vector<float>(one.begin() + t * 32, one.begin() + (t + 1) * 32));
  }
}

TEST_CASE("the fp32 head comes back, and only it has a backward pass", "[model]") {
  const auto backend = default_backend().make();
  const ModelConfig config = config_of(true);
  TinyModel model(*backend, config, 4);
  const auto tokens = random_tokens(5, kLength, 32);
  const auto before = logits_of(model, tokens, 1);
  model.use_head(HeadPrecision::int8);
  CHECK(logits_of(model, tokens, 1) != before);
  Activations activations(*backend, config, 1, kLength, Keep::everything);
  const Tensor input = to_device(*backend, {1, kLength}, tokens);
  const TensorView logits = model.forward(input, activations);
  CHECK_THROWS_AS(model.backward(input, logits, activations), ContractError);
  model.use_head(HeadPrecision::fp32);
  CHECK(logits_of(model, tokens, 1) == before);
}
