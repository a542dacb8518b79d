// SPDX-License-Identifier: MIT
#include "core/eval/logit_comparison.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace bitnet {
namespace {

constexpr std::int64_t kSequences = 2, kTokens = 96, kDecodedTokens = 16;

// Logits of the whole sample, one after the other.
std::vector<float> sample_logits(Transformer& model) {
  Backend& backend = model.backend();
  const std::int64_t vocab = model.config().vocab_size;
  const std::int64_t length = std::min(kTokens, model.config().max_position_embeddings);
  const RandomStream random{0, RandomPurpose::test, 0};
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(kSequences * length));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(random.below(i, static_cast<std::uint64_t>(vocab)));
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

}  // namespace

LogitComparison compare_logits(Transformer& a, Transformer& b) {
  BITNET_CHECK(a.config().vocab_size == b.config().vocab_size &&
                   a.config().max_position_embeddings == b.config().max_position_embeddings,
               "models with vocabularies {} and {} and contexts {} and {} cannot be compared",
               a.config().vocab_size, b.config().vocab_size, a.config().max_position_embeddings,
               b.config().max_position_embeddings);
  const std::vector<float> x = sample_logits(a), y = sample_logits(b);
  LogitComparison result;
  result.compared = static_cast<std::int64_t>(x.size());
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
