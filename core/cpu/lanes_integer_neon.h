// SPDX-License-Identifier: MIT
// Integers beside the fp32 lanes: magnitudes as bits, int8 codes, 16 random words. Included by
// float_neon.cpp alone, after lanes_neon.h.
#pragma once

#include <cstdint>

#include "core/cpu/lanes_neon.h"

namespace bitnet::cpu {
namespace {

// --- codes ---
// The bits of non-negative floats order like integers, with NaN above infinity.
inline float32x4_t max_magnitude(float32x4_t largest, float32x4_t x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(vabsq_f32(x));
  return vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(largest), bits));
}
inline Lanes max_magnitude(Lanes largest, Lanes x) {
  return {max_magnitude(largest.a, x.a), max_magnitude(largest.b, x.b),
          max_magnitude(largest.c, x.c), max_magnitude(largest.d, x.d)};
}
inline float largest_magnitude(Lanes magnitudes) {
  const uint32x4_t m = vmaxq_u32(
      vmaxq_u32(vreinterpretq_u32_f32(magnitudes.a), vreinterpretq_u32_f32(magnitudes.b)),
      vmaxq_u32(vreinterpretq_u32_f32(magnitudes.c), vreinterpretq_u32_f32(magnitudes.d)));
  return vgetq_lane_f32(vreinterpretq_f32_u32(vdupq_n_u32(vmaxvq_u32(m))), 0);
}

// To the nearest integer, ties to even; |x| < 127.5.
inline void store_codes(std::int8_t* p, All, Lanes x) {
  const int16x8_t low =
      vcombine_s16(vmovn_s32(vcvtnq_s32_f32(x.a)), vmovn_s32(vcvtnq_s32_f32(x.b)));
  const int16x8_t high =
      vcombine_s16(vmovn_s32(vcvtnq_s32_f32(x.c)), vmovn_s32(vcvtnq_s32_f32(x.d)));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
inline void store_codes(std::int8_t* p, First part, Lanes x) {
  std::int8_t codes[16];
  store_codes(codes, All{}, x);
  for (int i = 0; i < part.count; ++i) p[i] = codes[i];
}

// --- random words ---
struct Words {
  uint32x4_t part[4];
};

inline Words set1_word(std::uint32_t x) {
  const uint32x4_t v = vdupq_n_u32(x);
  return {{v, v, v, v}};
}
inline Words load_words(const std::uint32_t* p) {
  return {{vld1q_u32(p), vld1q_u32(p + 4), vld1q_u32(p + 8), vld1q_u32(p + 12)}};
}
inline Words operator+(Words a, Words b) {
  for (int i = 0; i < 4; ++i) a.part[i] = vaddq_u32(a.part[i], b.part[i]);
  return a;
}
inline Words xor3(Words a, Words b, Words c) {
  for (int i = 0; i < 4; ++i) a.part[i] = veorq_u32(veorq_u32(a.part[i], b.part[i]), c.part[i]);
  return a;
}

// The halves of the 64-bit products.
inline void multiply(Words a, std::uint32_t factor, Words& high, Words& low) {
  const uint32x2_t m = vdup_n_u32(factor);
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t first = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(a.part[i]), m));
    const uint32x4_t second = vreinterpretq_u32_u64(vmull_u32(vget_high_u32(a.part[i]), m));
    low.part[i] = vuzp1q_u32(first, second);
    high.part[i] = vuzp2q_u32(first, second);
  }
}

constexpr int block_of_lane(int lane) { return lane; }

// words[w] holds word w of 16 blocks; afterwards words[r] holds the four words of each of the
// blocks 4 r .. 4 r + 3.
inline void gather_blocks(Words words[4]) {
  Words blocks[4];
  for (int r = 0; r < 4; ++r) {
    const uint32x4x2_t even = vtrnq_u32(words[0].part[r], words[1].part[r]);
    const uint32x4x2_t odd = vtrnq_u32(words[2].part[r], words[3].part[r]);
    for (int i = 0; i < 2; ++i) {
      blocks[r].part[i] = vcombine_u32(vget_low_u32(even.val[i]), vget_low_u32(odd.val[i]));
      blocks[r].part[i + 2] = vcombine_u32(vget_high_u32(even.val[i]), vget_high_u32(odd.val[i]));
    }
  }
  for (int r = 0; r < 4; ++r) words[r] = blocks[r];
}

// word > limit ? x : 0
inline float32x4_t keep_above(uint32x4_t words, uint32x4_t limit, float32x4_t x) {
  return vreinterpretq_f32_u32(vandq_u32(vcgtq_u32(words, limit), vreinterpretq_u32_f32(x)));
}
inline Lanes keep_above(Words words, std::uint32_t limit, Lanes x) {
  const uint32x4_t bound = vdupq_n_u32(limit);
  return {keep_above(words.part[0], bound, x.a), keep_above(words.part[1], bound, x.b),
          keep_above(words.part[2], bound, x.c), keep_above(words.part[3], bound, x.d)};
}

}  // namespace
}  // namespace bitnet::cpu
