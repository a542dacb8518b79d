// SPDX-License-Identifier: MIT
// The limits that AVX-512 and AMX have in common: reads of 64 bytes, fma on 16 floats. Included by
// files that are compiled for one of them alone; each has its own copy.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "core/cpu/limit_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

uint32_t mix_of(__m512i v) {
  alignas(64) uint32_t words[16];
  _mm512_store_si512(words, v);
  uint32_t all = 0;
  for (const uint32_t word : words) all ^= word;
  return all;
}

template <int64_t kAhead>
uint64_t read(const uint8_t* data, int64_t bytes) {
  __m512i mix[8];
  for (__m512i& m : mix) m = _mm512_setzero_si512();
  for (int64_t i = 0; i < bytes; i += 512) {
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) {
      const uint8_t* const place = data + i + 64 * v;
      if (kAhead > 0) {
        _mm_prefetch(reinterpret_cast<const char*>(place + kAhead), _MM_HINT_T0);
      }
      mix[v] = _mm512_xor_si512(mix[v], _mm512_load_si512(place));
    }
  }
  uint32_t all = 0;
  for (const __m512i m : mix) all ^= mix_of(m);
  return all;
}

uint64_t read_paced(const uint8_t* data, int64_t bytes) {
  __m512i mix = _mm512_setzero_si512(), one = _mm512_set1_epi32(1);
  for (int64_t i = 0; i < bytes; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(data + i + kReadAhead), _MM_HINT_T0);
    mix = _mm512_xor_si512(mix, _mm512_load_si512(data + i));
#pragma GCC unroll 16
    for (int step = 0; step < kPace; ++step) {
      asm volatile("vpaddd %1, %0, %0" : "+v"(mix) : "v"(one));
    }
  }
  return mix_of(mix);
}

// Two instructions a cycle with a latency of 4 (fma) and 5 (vpdpbusd) cycles: at least 10 sums are
// under way.
constexpr int kSums = 16;

uint32_t multiply_add(int64_t rounds) {
  __m512 a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(0.125f);
  asm volatile("" : "+v"(a), "+v"(b));  // unknown to the compiler from here on
  __m512 sums[kSums];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_fmadd_ps(sums[i], b, a);
  }
  uint32_t all = 0;
  for (const __m512 sum : sums) all ^= mix_of(_mm512_castps_si512(sum));
  return all;
}

constexpr ReadKernel kRead = {"64-byte loads", read<0>};
constexpr ReadKernel kReadAheadOf = {"64-byte loads, prefetch 4 KB ahead", read<kReadAhead>};
constexpr ReadKernel kReadPaced = {"64-byte loads, prefetch 4 KB ahead, paced", read_paced};
constexpr ComputeKernel kMultiplyAdd = {"vfmadd, 512 bits", 2 * 16 * kSums, multiply_add};

}  // namespace
}  // namespace bitnet::cpu
