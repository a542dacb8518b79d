// SPDX-License-Identifier: MIT
// Dropout: Philox4x32-10 (core/base/random.h) for 16 blocks of four words at a time. Included by
// each float_<isa>.cpp after its lanes_integer_<isa>.h.
#pragma once

#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

struct BlockOrder {
  std::uint32_t place[16];
};
constexpr BlockOrder make_block_order() {
  BlockOrder order{};
  for (int l = 0; l < 16; ++l) order.place[l] = static_cast<std::uint32_t>(block_of_lane(l));
  return order;
}
constexpr BlockOrder kBlockOrder = make_block_order();

// The counters of the blocks first + block_of_lane(l).
inline void count_blocks(std::uint64_t first, Words& low, Words& high) {
  const auto first_low = static_cast<std::uint32_t>(first);
  if (first_low <= 0xffffffffu - 15) {
    low = set1_word(first_low) + load_words(kBlockOrder.place);
    high = set1_word(static_cast<std::uint32_t>(first >> 32));
    return;
  }
  std::uint32_t lows[16], highs[16];
  for (int l = 0; l < 16; ++l) {
    const std::uint64_t index = first + kBlockOrder.place[l];
    lows[l] = static_cast<std::uint32_t>(index);
    highs[l] = static_cast<std::uint32_t>(index >> 32);
  }
  low = load_words(lows);
  high = load_words(highs);
}

// Word w of these blocks in words[w]. The rounds are those of philox4x32().
inline void random_words(const DropoutRule& rule, std::uint64_t first, Words words[4]) {
  Words c0, c1, c2 = set1_word(rule.step), c3 = set1_word(rule.purpose);
  count_blocks(first, c0, c1);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    Words high0, low0, high1, low1;
    multiply(c0, 0xD2511F53u, high0, low0);
    multiply(c2, 0xCD9E8D57u, high1, low1);
    c0 = xor3(high1, c1, set1_word(rule.keys[round][0]));
    c2 = xor3(high0, c3, set1_word(rule.keys[round][1]));
    c1 = low1;
    c3 = low0;
  }
  words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

void dropout(const DropoutRule& rule, std::uint64_t first_block, const float* x, float* y,
             std::int64_t n) {
  const Lanes keep = set1(rule.keep);
  for (std::int64_t i = 0; i < n; i += 64, first_block += 16) {
    Words words[4];
    random_words(rule, first_block, words);
    gather_blocks(words);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const std::int64_t start = i + 16 * r;
      if (start + 16 <= n) {
        store(y + start, keep_above(words[r], rule.last_dropped, load(x + start) / keep));
      } else if (start < n) {
        const First part{static_cast<int>(n - start)};
        store(y + start, part,
              keep_above(words[r], rule.last_dropped, load(x + start, part, zero()) / keep));
      }
    }
  }
}

}  // namespace
}  // namespace bitnet::cpu
