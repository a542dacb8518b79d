// SPDX-License-Identifier: MIT
// Limits of NEON with the dot product extension: fmla on 4 floats, sdot on 16 bytes.
#include <arm_neon.h>

#include <cstdint>

#include "core/cpu/limit_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int64_t;
using std::int8_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

template <int64_t kAhead>
uint64_t read(const uint8_t* data, int64_t bytes) {
  uint8x16_t mix[8];
  for (uint8x16_t& m : mix) m = vdupq_n_u8(0);
  for (int64_t i = 0; i < bytes; i += 128) {
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) {
      if (kAhead > 0 && v % 4 == 0) __builtin_prefetch(data + i + 16 * v + kAhead);
      mix[v] = veorq_u8(mix[v], vld1q_u8(data + i + 16 * v));
    }
  }
  uint64_t all = 0;
  for (const uint8x16_t m : mix) {
    const uint64x2_t words = vreinterpretq_u64_u8(m);
    all ^= vgetq_lane_u64(words, 0) ^ vgetq_lane_u64(words, 1);
  }
  return all;
}

uint64_t read_paced(const uint8_t* data, int64_t bytes) {
  uint8x16_t mix = vdupq_n_u8(0), one = vdupq_n_u8(1);
  for (int64_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch(data + i + kReadAhead);
    const uint8x16x4_t line = vld1q_u8_x4(data + i);
    mix = veorq_u8(
        mix, veorq_u8(veorq_u8(line.val[0], line.val[1]), veorq_u8(line.val[2], line.val[3])));
#pragma GCC unroll 16
    for (int step = 0; step < kPace; ++step) {
      asm volatile("add %0.16b, %0.16b, %1.16b" : "+w"(mix) : "w"(one));
    }
  }
  const uint64x2_t words = vreinterpretq_u64_u8(mix);
  return vgetq_lane_u64(words, 0) ^ vgetq_lane_u64(words, 1);
}

void add_dot(int32x4_t& sums, int8x16_t w, int8x16_t x) {
  asm("sdot %0.4s, %1.16b, %2.16b" : "+w"(sums) : "w"(w), "w"(x));
}

// Up to four instructions a cycle with a latency of 4 cycles: 16 sums are under way.
constexpr int kSums = 16;

uint32_t multiply_add(int64_t rounds) {
  float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(0.125f);
  asm volatile("" : "+w"(a), "+w"(b));  // unknown to the compiler from here on
  float32x4_t sums[kSums];
  for (float32x4_t& sum : sums) sum = vdupq_n_f32(0);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] = vfmaq_f32(sums[i], a, b);
  }
  uint32_t all = 0;
  for (const float32x4_t sum : sums) all ^= vaddvq_u32(vreinterpretq_u32_f32(sum));
  return all;
}

uint32_t dot_bytes(int64_t rounds) {
  const int8x16_t x = vdupq_n_s8(-3), w = vdupq_n_s8(1);
  int32x4_t sums[kSums];
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) sums[i] = vdupq_n_s32(0);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) add_dot(sums[i], w, x);
  }
  int32x4_t all = sums[0];
#pragma GCC unroll 16
  for (int i = 1; i < kSums; ++i) all = veorq_s32(all, sums[i]);
  return static_cast<uint32_t>(vaddvq_s32(all));
}

}  // namespace

const LimitKernels kLimitsNeon = {
    "neon",
    {{"16-byte loads", read<0>},
     {"16-byte loads, prefetch 4 KB ahead", read<kReadAhead>},
     {"16-byte loads, prefetch 4 KB ahead, paced", read_paced}},
    {{"fmla", 2 * 4 * kSums, multiply_add}, {}},
    {{"sdot", 2 * 16 * kSums, dot_bytes}, {}},
};

}  // namespace bitnet::cpu
