// SPDX-License-Identifier: MIT
// 16 fp32 lanes in one 512-bit register. Included by float_avx512.cpp alone; the anonymous
// namespace keeps this code in that file.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace bitnet::cpu {
namespace {

struct Lanes {
  __m512 v;
};

constexpr int kTileRows = 6, kTileOutputs = 4;  // of linear: 24 accumulators
// Of a product: up to 24 accumulators. The rows that go with 1 to 4 vectors.
constexpr int kGroupVectors = 4;
constexpr int kGroupRows[kGroupVectors] = {16, 8, 8, 6};

// The first `count` lanes of a row's end, count in 1 .. 15.
struct First {
  int count;
};
struct All {};

inline __mmask16 mask_of(First part) { return static_cast<__mmask16>((1u << part.count) - 1u); }

inline Lanes set1(float x) { return {_mm512_set1_ps(x)}; }
inline Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Lanes load(const float* p, All, Lanes) { return load(p); }
inline Lanes load(const float* p, First part, Lanes fill) {
  return {_mm512_mask_loadu_ps(fill.v, mask_of(part), p)};
}
inline void store(float* p, Lanes a) { _mm512_storeu_ps(p, a.v); }
inline void store(float* p, All, Lanes a) { store(p, a); }
inline void store(float* p, First part, Lanes a) { _mm512_mask_storeu_ps(p, mask_of(part), a.v); }

// fp16, widened exactly; narrowed to nearest even.
inline Lanes load(const std::uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store(std::uint16_t* p, Lanes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes sqrt(Lanes a) { return {_mm512_sqrt_ps(a.v)}; }
inline Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }  // a > b ? a : b
inline Lanes min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }  // a < b ? a : b
inline Lanes select_less(Lanes a, Lanes b, Lanes yes, Lanes no) {         // a < b ? yes : no
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
inline Lanes blend_first(First part, Lanes first, Lanes rest) {
  return {_mm512_mask_blend_ps(mask_of(part), rest.v, first.v)};
}
inline Lanes round_even(Lanes a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// 2^n for integral n in -126 .. 127.
inline Lanes power_of_two(Lanes n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}

// x < limit ? 0 : a * b
inline Lanes multiply_unless_below(Lanes x, Lanes limit, Lanes a, Lanes b) {
  return {_mm512_maskz_mul_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_NLT_UQ), a.v, b.v)};
}
// 2^n of kExp2Shift + n, n in -126 .. 128.
inline Lanes shift_to_exponent(Lanes shifted) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23))};
}

// Lanes l + (l + 8) of two vectors, side by side; then l + (l + 4) of two such, one vector in each
// 128 bits.
inline __m512 join8(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
}
inline __m512 join4(__m512 ab, __m512 cd) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
}

// sums[i] = the tree sum of lanes[i].
inline void sum4(const Lanes lanes[4], float sums[4]) {
  __m512 s = join4(join8(lanes[0].v, lanes[1].v), join8(lanes[2].v, lanes[3].v));
  s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4E));
  s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xB1));
  const __m512i heads = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_permutexvar_ps(heads, s)));
}

// The largest lane, by the same tree.
inline float max_lane(Lanes a) {
  const __m256 m8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
  const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

// Four rows' 128-bit parts, each transposed within its 4 x 4 blocks.
inline void transpose_blocks(__m512 r0, __m512 r1, __m512 r2, __m512 r3, __m512 out[4]) {
  const __m512 a = _mm512_unpacklo_ps(r0, r1), b = _mm512_unpackhi_ps(r0, r1);
  const __m512 c = _mm512_unpacklo_ps(r2, r3), d = _mm512_unpackhi_ps(r2, r3);
  out[0] = _mm512_shuffle_ps(a, c, 0x44);
  out[1] = _mm512_shuffle_ps(a, c, 0xEE);
  out[2] = _mm512_shuffle_ps(b, d, 0x44);
  out[3] = _mm512_shuffle_ps(b, d, 0xEE);
}

// out[e * out_stride + j] = rows[j][e] for 16 rows of 16.
inline void transpose(const float* const rows[16], float* out, long out_stride) {
  for (int block = 0; block < 4; ++block) {  // columns 4 * block .. + 3 of all rows
    __m512 r[4];  // r[i]: rows i, 4 + i, 8 + i, 12 + i in its 128-bit parts
    for (int i = 0; i < 4; ++i) {
      __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(rows[i] + 4 * block));
      v = _mm512_insertf32x4(v, _mm_loadu_ps(rows[4 + i] + 4 * block), 1);
      v = _mm512_insertf32x4(v, _mm_loadu_ps(rows[8 + i] + 4 * block), 2);
      r[i] = _mm512_insertf32x4(v, _mm_loadu_ps(rows[12 + i] + 4 * block), 3);
    }
    __m512 t[4];
    transpose_blocks(r[0], r[1], r[2], r[3], t);
    for (int i = 0; i < 4; ++i) _mm512_storeu_ps(out + (4 * block + i) * out_stride, t[i]);
  }
}

}  // namespace
}  // namespace bitnet::cpu
