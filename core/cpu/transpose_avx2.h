// SPDX-License-Identifier: MIT
// A square of 32-bit elements turned in registers. Included by files that are compiled for this
// instruction set alone; each has its own copy.
#pragma once

#include <immintrin.h>

namespace bitnet::cpu {
namespace {

// In place: element k of v[j] becomes element j of v[k].
inline void transpose_8x8(__m256i v[8]) {
  __m256i a[8];
#pragma GCC unroll 2
  for (int j = 0; j < 8; j += 4) {
    const __m256i lo01 = _mm256_unpacklo_epi32(v[j], v[j + 1]);
    const __m256i hi01 = _mm256_unpackhi_epi32(v[j], v[j + 1]);
    const __m256i lo23 = _mm256_unpacklo_epi32(v[j + 2], v[j + 3]);
    const __m256i hi23 = _mm256_unpackhi_epi32(v[j + 2], v[j + 3]);
    // Lane l of a[j + n]: element 4 l + n of rows j .. j + 3.
    a[j] = _mm256_unpacklo_epi64(lo01, lo23);
    a[j + 1] = _mm256_unpackhi_epi64(lo01, lo23);
    a[j + 2] = _mm256_unpacklo_epi64(hi01, hi23);
    a[j + 3] = _mm256_unpackhi_epi64(hi01, hi23);
  }
#pragma GCC unroll 4
  for (int n = 0; n < 4; ++n) {
    v[n] = _mm256_permute2x128_si256(a[n], a[n + 4], 0x20);
    v[n + 4] = _mm256_permute2x128_si256(a[n], a[n + 4], 0x31);
  }
}

}  // namespace
}  // namespace bitnet::cpu
