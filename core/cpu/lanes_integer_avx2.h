// SPDX-License-Identifier: MIT
// Integers beside the fp32 lanes: magnitudes as bits, int8 codes, 16 random words. Included by
// float_avx2.cpp alone, after lanes_avx2.h.
#pragma once

#include <cstdint>

#include "core/cpu/lanes_avx2.h"

namespace bitnet::cpu {
namespace {

// --- codes ---
// The bits of non-negative floats order like integers, with NaN above infinity.
inline __m256 max_magnitude(__m256 largest, __m256 x) {
  const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
  return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(largest), bits));
}
inline Lanes max_magnitude(Lanes largest, Lanes x) {
  return {max_magnitude(largest.lo, x.lo), max_magnitude(largest.hi, x.hi)};
}
inline float largest_magnitude(Lanes magnitudes) {
  const __m256i m8 =
      _mm256_max_epi32(_mm256_castps_si256(magnitudes.lo), _mm256_castps_si256(magnitudes.hi));
  const __m128i m4 = _mm_max_epi32(_mm256_castsi256_si128(m8), _mm256_extracti128_si256(m8, 1));
  const __m128i m2 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0x4E));
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(m2, _mm_shuffle_epi32(m2, 0xB1))));
}

// To the nearest integer, ties to even; |x| < 127.5.
inline void store_codes(std::int8_t* p, All, Lanes x) {
  const __m256i crossed = _mm256_packs_epi32(_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi));
  const __m256i ordered = _mm256_permute4x64_epi64(crossed, 0xD8);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(p),
      _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
}
inline void store_codes(std::int8_t* p, First part, Lanes x) {
  std::int8_t codes[16];
  store_codes(codes, All{}, x);
  for (int i = 0; i < part.count; ++i) p[i] = codes[i];
}

// --- random words ---
struct Words {
  __m256i lo, hi;
};

inline Words set1_word(std::uint32_t x) {
  const __m256i v = _mm256_set1_epi32(static_cast<int>(x));
  return {v, v};
}
inline Words load_words(const std::uint32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
inline __m256i xor3(__m256i a, __m256i b, __m256i c) {
  return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
}
inline Words operator+(Words a, Words b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
inline Words xor3(Words a, Words b, Words c) {
  return {xor3(a.lo, b.lo, c.lo), xor3(a.hi, b.hi, c.hi)};
}

// The halves of the 64-bit products: the even lanes, then the odd ones.
inline void multiply(__m256i a, __m256i factor, __m256i& high, __m256i& low) {
  const __m256i even = _mm256_mul_epu32(a, factor);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), factor);
  high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}
inline void multiply(Words a, std::uint32_t factor, Words& high, Words& low) {
  const __m256i m = _mm256_set1_epi32(static_cast<int>(factor));
  multiply(a.lo, m, high.lo, low.lo);
  multiply(a.hi, m, high.hi, low.hi);
}

// The order of 16 blocks in which gather_blocks() needs no exchange between 128-bit parts.
constexpr int block_of_lane(int lane) { return lane / 8 * 8 + lane % 4 * 2 + lane % 8 / 4; }

// Eight blocks, as 32 words in their order.
inline void gather_eight(__m256i w0, __m256i w1, __m256i w2, __m256i w3, Words& first,
                         Words& second) {
  const __m256i a = _mm256_unpacklo_epi32(w0, w1), b = _mm256_unpackhi_epi32(w0, w1);
  const __m256i c = _mm256_unpacklo_epi32(w2, w3), d = _mm256_unpackhi_epi32(w2, w3);
  first = {_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c)};
  second = {_mm256_unpacklo_epi64(b, d), _mm256_unpackhi_epi64(b, d)};
}
// words[w] holds word w of the blocks in that order; afterwards words[r] holds the four words of
// each of the blocks 4 r .. 4 r + 3.
inline void gather_blocks(Words words[4]) {
  const Words w0 = words[0], w1 = words[1], w2 = words[2], w3 = words[3];
  gather_eight(w0.lo, w1.lo, w2.lo, w3.lo, words[0], words[1]);
  gather_eight(w0.hi, w1.hi, w2.hi, w3.hi, words[2], words[3]);
}

// word > limit ? x : 0. Unsigned: both are moved by 2^31 for the signed comparison.
inline __m256 keep_above(__m256i words, std::uint32_t limit, __m256 x) {
  const __m256i shifted = _mm256_xor_si256(words, _mm256_set1_epi32(static_cast<int>(0x80000000u)));
  const __m256i bound = _mm256_set1_epi32(static_cast<int>(limit ^ 0x80000000u));
  return _mm256_and_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(shifted, bound)), x);
}
inline Lanes keep_above(Words words, std::uint32_t limit, Lanes x) {
  return {keep_above(words.lo, limit, x.lo), keep_above(words.hi, limit, x.hi)};
}

}  // namespace
}  // namespace bitnet::cpu
