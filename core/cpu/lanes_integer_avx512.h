// SPDX-License-Identifier: MIT
// Integers beside the fp32 lanes: magnitudes as bits, int8 codes, 16 random words. Included by
// float_avx512.cpp alone, after lanes_avx512.h.
#pragma once

#include <cstdint>

#include "core/cpu/lanes_avx512.h"

namespace bitnet::cpu {
namespace {

// --- codes ---
// The bits of non-negative floats order like integers, with NaN above infinity.
inline Lanes max_magnitude(Lanes largest, Lanes x) {
  const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x.v), _mm512_set1_epi32(0x7fffffff));
  return {_mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(largest.v), bits))};
}
inline float largest_magnitude(Lanes magnitudes) {
  return _mm_cvtss_f32(_mm_castsi128_ps(
      _mm_cvtsi32_si128(_mm512_reduce_max_epi32(_mm512_castps_si512(magnitudes.v)))));
}

// To the nearest integer, ties to even; |x| < 127.5.
inline void store_codes(std::int8_t* p, All, Lanes x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.v)));
}
inline void store_codes(std::int8_t* p, First part, Lanes x) {
  _mm512_mask_cvtepi32_storeu_epi8(p, mask_of(part), _mm512_cvtps_epi32(x.v));
}

// --- random words ---
struct Words {
  __m512i v;
};

inline Words set1_word(std::uint32_t x) { return {_mm512_set1_epi32(static_cast<int>(x))}; }
inline Words load_words(const std::uint32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Words operator+(Words a, Words b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Words xor3(Words a, Words b, Words c) {
  return {_mm512_ternarylogic_epi32(a.v, b.v, c.v, 0x96)};
}

// The halves of the 64-bit products: the even lanes, then the odd ones.
inline void multiply(Words a, std::uint32_t factor, Words& high, Words& low) {
  const __m512i m = _mm512_set1_epi32(static_cast<int>(factor));
  const __m512i even = _mm512_mul_epu32(a.v, m);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), m);
  high.v = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
  low.v = _mm512_mask_shuffle_epi32(even, 0xAAAA, odd, _MM_PERM_CCAA);
}

// The order of 16 blocks in which gather_blocks() needs no exchange between 128-bit parts.
constexpr int block_of_lane(int lane) { return lane % 4 * 4 + lane / 4; }

// words[w] holds word w of the blocks in that order; afterwards words[r] holds the four words of
// each of the blocks 4 r .. 4 r + 3.
inline void gather_blocks(Words words[4]) {
  const __m512i a = _mm512_unpacklo_epi32(words[0].v, words[1].v),
                b = _mm512_unpackhi_epi32(words[0].v, words[1].v);
  const __m512i c = _mm512_unpacklo_epi32(words[2].v, words[3].v),
                d = _mm512_unpackhi_epi32(words[2].v, words[3].v);
  words[0].v = _mm512_unpacklo_epi64(a, c);
  words[1].v = _mm512_unpackhi_epi64(a, c);
  words[2].v = _mm512_unpacklo_epi64(b, d);
  words[3].v = _mm512_unpackhi_epi64(b, d);
}

// word > limit ? x : 0
inline Lanes keep_above(Words words, std::uint32_t limit, Lanes x) {
  const __mmask16 kept =
      _mm512_cmpgt_epu32_mask(words.v, _mm512_set1_epi32(static_cast<int>(limit)));
  return {_mm512_maskz_mov_ps(kept, x.v)};
}

}  // namespace
}  // namespace bitnet::cpu
