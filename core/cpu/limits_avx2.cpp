// SPDX-License-Identifier: MIT
// Limits of AVX2: fma on 8 floats; bytes by vpmaddubsw, whose 16-bit pairs must be widened to 32.
#include <immintrin.h>

#include <cstdint>

#include "core/cpu/limit_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

uint32_t mix_of(__m256i v) {
  alignas(32) uint32_t words[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), v);
  uint32_t all = 0;
  for (const uint32_t word : words) all ^= word;
  return all;
}

template <int64_t kAhead>
uint64_t read(const uint8_t* data, int64_t bytes) {
  __m256i mix[8];
  for (__m256i& m : mix) m = _mm256_setzero_si256();
  for (int64_t i = 0; i < bytes; i += 256) {
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) {
      const uint8_t* const place = data + i + 32 * v;
      if (kAhead > 0 && v % 2 == 0) {
        _mm_prefetch(reinterpret_cast<const char*>(place + kAhead), _MM_HINT_T0);
      }
      mix[v] = _mm256_xor_si256(mix[v], _mm256_load_si256(reinterpret_cast<const __m256i*>(place)));
    }
  }
  uint32_t all = 0;
  for (const __m256i m : mix) all ^= mix_of(m);
  return all;
}

uint64_t read_paced(const uint8_t* data, int64_t bytes) {
  __m256i mix = _mm256_setzero_si256(), one = _mm256_set1_epi32(1);
  for (int64_t i = 0; i < bytes; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(data + i + kReadAhead), _MM_HINT_T0);
    const __m256i* const line = reinterpret_cast<const __m256i*>(data + i);
    mix = _mm256_xor_si256(mix,
                           _mm256_xor_si256(_mm256_load_si256(line), _mm256_load_si256(line + 1)));
#pragma GCC unroll 16
    for (int step = 0; step < kPace; ++step) {
      asm volatile("vpaddd %1, %0, %0" : "+x"(mix) : "x"(one));
    }
  }
  return mix_of(mix);
}

// Two fma a cycle with a latency of 4 to 5 cycles: at least 10 sums are under way; 16 registers
// hold 12 and the operands.
constexpr int kFmaSums = 12;

uint32_t multiply_add(int64_t rounds) {
  __m256 a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(0.125f);
  asm volatile("" : "+x"(a), "+x"(b));  // unknown to the compiler from here on
  __m256 sums[kFmaSums];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kFmaSums; ++i) sums[i] = _mm256_fmadd_ps(sums[i], b, a);
  }
  uint32_t all = 0;
  for (const __m256 sum : sums) all ^= mix_of(_mm256_castps_si256(sum));
  return all;
}

// volatile: the operands never change, and the products would otherwise be made only once.
inline __m256i multiply_pairs(__m256i codes, __m256i x) {
  __m256i pairs;
  asm volatile("vpmaddubsw %2, %1, %0" : "=x"(pairs) : "x"(codes), "x"(x));
  return pairs;
}

constexpr int kDotSums = 8;

// vpmaddubsw, vpmaddwd by ones, vpaddd: exact for any bytes whose pairs fit in 16 bits.
uint32_t dot_bytes(int64_t rounds) {
  const __m256i codes = _mm256_set1_epi8(2), x = _mm256_set1_epi8(-3), ones = _mm256_set1_epi16(1);
  __m256i sums[kDotSums];
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < kDotSums; ++i) {
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(multiply_pairs(codes, x), ones));
    }
  }
  uint32_t all = 0;
  for (const __m256i sum : sums) all ^= mix_of(sum);
  return all;
}

// With ternary codes a pair is at most 2 x 128 x 2 = 512, so 63 of them can be summed in 16 bits
// before they are widened.
constexpr int kNarrowSteps = 32;

uint32_t dot_codes(int64_t rounds) {
  const __m256i codes = _mm256_set1_epi8(2), x = _mm256_set1_epi8(-3), ones = _mm256_set1_epi16(1);
  __m256i sums[kDotSums / 2];
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t r = 0; r < rounds; ++r) {
    __m256i narrow[kDotSums / 2];
    for (__m256i& sum : narrow) sum = _mm256_setzero_si256();
    for (int step = 0; step < kNarrowSteps; ++step) {
#pragma GCC unroll 4
      for (int i = 0; i < kDotSums / 2; ++i) {
        narrow[i] = _mm256_add_epi16(narrow[i], multiply_pairs(codes, x));
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kDotSums / 2; ++i) {
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(narrow[i], ones));
    }
  }
  uint32_t all = 0;
  for (const __m256i sum : sums) all ^= mix_of(sum);
  return all;
}

}  // namespace

const LimitKernels kLimitsAvx2 = {
    "avx2",
    {{"32-byte loads", read<0>},
     {"32-byte loads, prefetch 4 KB ahead", read<kReadAhead>},
     {"32-byte loads, prefetch 4 KB ahead, paced", read_paced}},
    {{"vfmadd", 2 * 8 * kFmaSums, multiply_add}, {}},
    {{"vpmaddubsw, vpmaddwd, vpaddd", 2 * 32 * kDotSums, dot_bytes},
     {"vpmaddubsw, vpaddw", 2 * 32 * (kDotSums / 2) * kNarrowSteps, dot_codes}},
};

}  // namespace bitnet::cpu
