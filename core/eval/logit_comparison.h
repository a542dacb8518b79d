// SPDX-License-Identifier: MIT
// Whether two models compute the same function: their logits on a fixed sample, compared bit for
// bit.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/transformer.h"

namespace bitnet {

struct LogitComparison {
  std::int64_t compared = 0;      // logits of each model
  std::int64_t different = 0;     // of these, how many differ in any bit
  double largest_difference = 0;  // infinity where one of two different logits is not finite
};

// Both must have the same vocabulary and context length, and may be on different backends. The
// sample is two sequences of pseudo-random token ids through forward(), and one of them again through a
// KV cache: a prompt at once, then token by token.
LogitComparison compare_logits(Transformer& a, Transformer& b);

// The logits of a sample of two sequences of at most kSampleTokens tokens, `tokens` [2 * T] one
// after the other: those of forward() [2 * T, V], then the first sequence again through a KV cache,
// a prompt at once and token by token.
inline constexpr std::int64_t kSampleTokens = 96;
std::vector<float> sample_logits(Transformer& model, std::span<const std::int32_t> tokens);
// Two pseudo-random sequences that a model of this shape can read.
std::vector<std::int32_t> random_sample(const ModelConfig& config);
LogitComparison compare_logits(std::span<const float> a, std::span<const float> b);

}  // namespace bitnet
