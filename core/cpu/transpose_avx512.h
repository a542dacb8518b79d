// SPDX-License-Identifier: MIT
// A square of 32-bit elements turned in registers. Included by files that are compiled for this
// instruction set alone; each has its own copy.
#pragma once

#include <immintrin.h>

namespace bitnet::cpu {
namespace {

// In place: element k of v[j] becomes element j of v[k].
inline void transpose_16x16(__m512i v[16]) {
  __m512i a[16];
#pragma GCC unroll 4
  for (int j = 0; j < 16; j += 4) {
    const __m512i lo01 = _mm512_unpacklo_epi32(v[j], v[j + 1]);
    const __m512i hi01 = _mm512_unpackhi_epi32(v[j], v[j + 1]);
    const __m512i lo23 = _mm512_unpacklo_epi32(v[j + 2], v[j + 3]);
    const __m512i hi23 = _mm512_unpackhi_epi32(v[j + 2], v[j + 3]);
    // Lane l of a[j + n]: element 4 l + n of rows j .. j + 3.
    a[j] = _mm512_unpacklo_epi64(lo01, lo23);
    a[j + 1] = _mm512_unpackhi_epi64(lo01, lo23);
    a[j + 2] = _mm512_unpacklo_epi64(hi01, hi23);
    a[j + 3] = _mm512_unpackhi_epi64(hi01, hi23);
  }
#pragma GCC unroll 4
  for (int n = 0; n < 4; ++n) {
    const __m512i even01 = _mm512_shuffle_i32x4(a[n], a[n + 4], 0x88);
    const __m512i odd01 = _mm512_shuffle_i32x4(a[n], a[n + 4], 0xdd);
    const __m512i even23 = _mm512_shuffle_i32x4(a[n + 8], a[n + 12], 0x88);
    const __m512i odd23 = _mm512_shuffle_i32x4(a[n + 8], a[n + 12], 0xdd);
    v[n] = _mm512_shuffle_i32x4(even01, even23, 0x88);
    v[n + 8] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
    v[n + 4] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
    v[n + 12] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
  }
}

}  // namespace
}  // namespace bitnet::cpu
