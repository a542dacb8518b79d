// SPDX-License-Identifier: MIT
#include "core/eval/logit_comparison.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace bitnet {
namespace {

constexpr std::int64_t kSequences = 2, kDecodedTokens = 16;

}  // namespace

std::vector<std::int32_t> random_sample(const ModelConfig& config) {
  const std::int64_t length = std::min(kSampleTokens, config.max_position_embeddings);
  const RandomStream random{0, RandomPurpose::test, 0};
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(kSequences * length));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] =
        static_cast<std::int32_t>(random.below(i, static_cast<std::uint64_t>(config.vocab_size)));
  return tokens;
}

std::vector<float> sample_logits(Transformer& model, std::span<const std::int32_t> tokens) {
  Backend& backend = model.backend();
  const std::int64_t length = std::ssize(tokens) / kSequences;
  BITNET_CHECK(length >= 1 && length <= kSampleTokens && length * kSequences == std::ssize(tokens),
               "a sample of {} tokens", tokens.size());
  Tensor input = backend.make_tensor(DType::i32, {kSequences, length});
  backend.copy_from_host(tokens.data(), input);

  Activations activations(backend, model.config(), kSequences, length, Keep::nothing);
  std::vector<float> logits;
  const auto append = [&](ConstTensorView rows) {
    const std::size_t before = logits.size();
    logits.resize(before + static_cast<std::size_t>(rows.elements()));
    backend.copy_to_host(rows, logits.data() + before);
  };
  append(model.forward(input, activations));

  KvCache cache(backend, model.config(), length);
  const std::int64_t decoded = std::min(kDecodedTokens, length - 1), prompt = length - decoded;
  const TensorView sequence = input.view().rows(0, 1).reshaped({length});
  append(model.extend(sequence.rows(0, prompt).reshaped({1, prompt}), cache, activations));
  for (std::int64_t t = prompt; t < length; ++t)
    append(model.extend(sequence.rows(t, 1).reshaped({1, 1}), cache, activations));
  return logits;
}

LogitComparison compare_logits(Transformer& a, Transformer& b) {
  BITNET_CHECK(a.config().vocab_size == b.config().vocab_size &&
                   a.config().max_position_embeddings == b.config().max_position_embeddings,
               "models with vocabularies {} and {} and contexts {} and {} cannot be compared",
               a.config().vocab_size, b.config().vocab_size, a.config().max_position_embeddings,
               b.config().max_position_embeddings);
  const std::vector<std::int32_t> tokens = random_sample(a.config());
  return compare_logits(sample_logits(a, tokens), sample_logits(b, tokens));
}

LogitComparison compare_logits(std::span<const float> x, std::span<const float> y) {
  BITNET_CHECK(x.size() == y.size(), "{} and {} logits", x.size(), y.size());
  LogitComparison result;
  result.compared = std::ssize(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(x[i]) == std::bit_cast<std::uint32_t>(y[i])) continue;
    ++result.different;
    const double difference = std::abs(static_cast<double>(x[i]) - static_cast<double>(y[i]));
    result.largest_difference =
        std::max(result.largest_difference,
                 std::isfinite(difference) ? difference : std::numeric_limits<double>::infinity());
  }
  return result;
}

}  // namespace bitnet
