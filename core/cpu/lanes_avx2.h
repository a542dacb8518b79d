// SPDX-License-Identifier: MIT
// 16 fp32 lanes in two 256-bit registers. Included by float_avx2.cpp alone; the anonymous namespace
// keeps this code in that file.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace bitnet::cpu {
namespace {

struct Lanes {
  __m256 lo, hi;  // lanes 0 .. 7 and 8 .. 15
};

constexpr int kTileRows = 3, kTileOutputs = 2;  // of linear: 12 registers of accumulators
// Of a product: 12 registers of accumulators. The rows that go with a vector.
constexpr int kGroupVectors = 1;
constexpr int kGroupRows[kGroupVectors] = {6};

// The first `count` lanes of a row's end, count in 1 .. 15.
struct First {
  int count;
};
struct All {};

// All ones in the first part.count lanes.
struct LaneMask {
  __m256i lo, hi;
};
inline LaneMask mask_of(First part) {
  const __m256i count = _mm256_set1_epi32(part.count);
  return {_mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
          _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}

inline Lanes set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline Lanes blend_first(First part, Lanes first, Lanes rest) {
  const LaneMask mask = mask_of(part);
  return {_mm256_blendv_ps(rest.lo, first.lo, _mm256_castsi256_ps(mask.lo)),
          _mm256_blendv_ps(rest.hi, first.hi, _mm256_castsi256_ps(mask.hi))};
}
inline Lanes load(const float* p, All, Lanes) { return load(p); }
inline Lanes load(const float* p, First part, Lanes fill) {
  const LaneMask mask = mask_of(part);
  return blend_first(part, {_mm256_maskload_ps(p, mask.lo), _mm256_maskload_ps(p + 8, mask.hi)},
                     fill);
}
inline void store(float* p, Lanes a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline void store(float* p, All, Lanes a) { store(p, a); }
inline void store(float* p, First part, Lanes a) {
  const LaneMask mask = mask_of(part);
  _mm256_maskstore_ps(p, mask.lo, a.lo);
  _mm256_maskstore_ps(p + 8, mask.hi, a.hi);
}

// fp16, widened exactly; narrowed to nearest even.
inline __m256 load8(const std::uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void store8(std::uint16_t* p, __m256 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Lanes load(const std::uint16_t* p) { return {load8(p), load8(p + 8)}; }
inline void store(std::uint16_t* p, Lanes a) {
  store8(p, a.lo);
  store8(p + 8, a.hi);
}

inline Lanes operator+(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Lanes operator-(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Lanes operator*(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Lanes operator/(Lanes a, Lanes b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Lanes sqrt(Lanes a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
inline Lanes max(Lanes a, Lanes b) {  // a > b ? a : b
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline Lanes min(Lanes a, Lanes b) {  // a < b ? a : b
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline Lanes select_less(Lanes a, Lanes b, Lanes yes, Lanes no) {  // a < b ? yes : no
  return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline Lanes round_even(Lanes a) {
  return {_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// 2^n for integral n in -126 .. 127.
inline __m256 power_of_two(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline Lanes power_of_two(Lanes n) { return {power_of_two(n.lo), power_of_two(n.hi)}; }

// x < limit ? 0 : a * b
inline Lanes multiply_unless_below(Lanes x, Lanes limit, Lanes a, Lanes b) {
  return select_less(x, limit, set1(0.0f), a * b);
}
// 2^n of kExp2Shift + n, n in -126 .. 128.
inline __m256 shift_to_exponent(__m256 shifted) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
}
inline Lanes shift_to_exponent(Lanes shifted) {
  return {shift_to_exponent(shifted.lo), shift_to_exponent(shifted.hi)};
}

// Lanes l + (l + 4) of two vectors of 8, side by side.
inline __m256 join4(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

// sums[i] = the tree sum of lanes[i].
inline void sum4(const Lanes lanes[4], float sums[4]) {
  const __m256 ab =
      join4(_mm256_add_ps(lanes[0].lo, lanes[0].hi), _mm256_add_ps(lanes[1].lo, lanes[1].hi));
  const __m256 cd =
      join4(_mm256_add_ps(lanes[2].lo, lanes[2].hi), _mm256_add_ps(lanes[3].lo, lanes[3].hi));
  // Within 128 bits: l + (l + 2), as a a c c | b b d d; then l + (l + 1), as a c . . | b d . .
  const __m256 acbd =
      _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
  const __m256 s =
      _mm256_add_ps(_mm256_shuffle_ps(acbd, acbd, 0x88), _mm256_shuffle_ps(acbd, acbd, 0xDD));
  _mm_storeu_ps(sums, _mm_unpacklo_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

// The largest lane, by the same tree.
inline float max_lane(Lanes a) {
  const __m256 m8 = _mm256_max_ps(a.lo, a.hi);
  const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
  const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

// out[e * out_stride + j] = rows[j][e] for 16 rows of 16: four columns of eight rows at a time.
inline void transpose(const float* const rows[16], float* out, long out_stride) {
  for (int half = 0; half < 2; ++half) {
    const float* const* r = rows + 8 * half;
    for (int block = 0; block < 4; ++block) {
      __m256 v[4];  // v[i]: rows i and 4 + i
      for (int i = 0; i < 4; ++i) {
        const __m256 low = _mm256_castps128_ps256(_mm_loadu_ps(r[i] + 4 * block));
        v[i] = _mm256_insertf128_ps(low, _mm_loadu_ps(r[4 + i] + 4 * block), 1);
      }
      const __m256 a = _mm256_unpacklo_ps(v[0], v[1]), b = _mm256_unpackhi_ps(v[0], v[1]);
      const __m256 c = _mm256_unpacklo_ps(v[2], v[3]), d = _mm256_unpackhi_ps(v[2], v[3]);
      float* column = out + 4 * block * out_stride + 8 * half;
      _mm256_storeu_ps(column, _mm256_shuffle_ps(a, c, 0x44));
      _mm256_storeu_ps(column + out_stride, _mm256_shuffle_ps(a, c, 0xEE));
      _mm256_storeu_ps(column + 2 * out_stride, _mm256_shuffle_ps(b, d, 0x44));
      _mm256_storeu_ps(column + 3 * out_stride, _mm256_shuffle_ps(b, d, 0xEE));
    }
  }
}

}  // namespace
}  // namespace bitnet::cpu
