// SPDX-License-Identifier: MIT
// Limits of AVX-512 with VNNI: vpdpbusd on 64 bytes, and what it shares with AMX.
#include "core/cpu/lanes_limits_avx512.h"

namespace bitnet::cpu {
namespace {

// Not the intrinsic: GCC 12 copies the sums around it.
void add_dot(__m512i& sums, __m512i codes, __m512i x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(codes), "v"(x));
}

uint32_t dot_bytes(int64_t rounds) {
  const __m512i codes = _mm512_set1_epi8(2), x = _mm512_set1_epi8(-3);
  __m512i sums[kSums];
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_setzero_si512();
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) add_dot(sums[i], codes, x);
  }
  __m512i all = sums[0];
#pragma GCC unroll 16
  for (int i = 1; i < kSums; ++i) all = _mm512_xor_si512(all, sums[i]);
  return mix_of(all);
}

}  // namespace

const LimitKernels kLimitsAvx512 = {
    "avx512vnni",
    {kRead, kReadAheadOf, kReadPaced},
    {kMultiplyAdd, {}},
    {{"vpdpbusd, 512 bits", 2 * 64 * kSums, dot_bytes}, {}},
};

}  // namespace bitnet::cpu
