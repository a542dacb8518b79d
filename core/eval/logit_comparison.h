// SPDX-License-Identifier: MIT
// Whether two models compute the same function: their logits on a fixed sample, compared bit for
// bit.
#pragma once

#include <cstdint>

#include "core/model/transformer.h"

namespace bitnet {

struct LogitComparison {
  std::int64_t compared = 0;      // logits of each model
  std::int64_t different = 0;     // of these, how many differ in any bit
  double largest_difference = 0;  // infinity where one of two different logits is not finite
};

// Both must have the same vocabulary and context length, and may be on different backends. The
// sample is two sequences of pseudo-random bytes through forward(), and one of them again through a
// KV cache: a prompt at once, then token by token.
LogitComparison compare_logits(Transformer& a, Transformer& b);

}  // namespace bitnet
