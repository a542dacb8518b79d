// SPDX-License-Identifier: MIT
// Gradient kernels for AVX2.
#include <immintrin.h>

#include <cstdint>

#include "core/cpu/gradient_kernels.h"
#include "core/cpu/transpose_avx2.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;

constexpr int64_t kTokenBlock = 32;  // tokens of a transposed line of codes

void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

// All ones in the first `count` elements, which are 4 or 8: columns are a multiple of 4.
__m256i first_lanes(int64_t count) {
  const int high = count >= 8 ? -1 : 0;
  return _mm256_set_epi32(high, high, high, high, -1, -1, -1, -1);
}

// --- absmax ---

// The bits of non-negative floats order like integers, with infinity above all numbers and NaN
// above infinity.
__m256i larger_magnitude(__m256i magnitude, __m256 x) {
  const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
  return _mm256_max_epi32(magnitude, bits);
}

float max_of_lanes(__m256i magnitudes) {
  __m128i four =
      _mm_max_epi32(_mm256_castsi256_si128(magnitudes), _mm256_extracti128_si256(magnitudes, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

template <int kRows>
void absmax_rows(const float* dy, int64_t columns, const float* act_scale, float* row_absmax,
                 float* column_absmax) {
  __m256i rows[kRows];
#pragma GCC unroll 4
  for (int t = 0; t < kRows; ++t) rows[t] = _mm256_setzero_si256();
  for (int64_t n = 0; n < columns; n += 8) {
    const __m256i lanes = first_lanes(columns - n);
    __m256i column = _mm256_castps_si256(_mm256_maskload_ps(column_absmax + n, lanes));
#pragma GCC unroll 4
    for (int t = 0; t < kRows; ++t) {
      const __m256 v = _mm256_maskload_ps(dy + t * columns + n, lanes);
      rows[t] = larger_magnitude(rows[t], v);
      column = larger_magnitude(column, _mm256_mul_ps(v, _mm256_set1_ps(act_scale[t])));
    }
    _mm256_maskstore_ps(column_absmax + n, lanes, _mm256_castsi256_ps(column));
  }
#pragma GCC unroll 4
  for (int t = 0; t < kRows; ++t) row_absmax[t] = max_of_lanes(rows[t]);
}

void absmax(const float* dy, int64_t tokens, int64_t columns, const float* act_scale,
            float* row_absmax, float* column_absmax) {
  int64_t t = 0;
  for (; t + 4 <= tokens; t += 4) {
    absmax_rows<4>(dy + t * columns, columns, act_scale + t, row_absmax + t, column_absmax);
  }
  for (; t < tokens; ++t) {
    absmax_rows<1>(dy + t * columns, columns, act_scale + t, row_absmax + t, column_absmax);
  }
}

// --- codes ---

// Byte b of each element is the low byte of that element of codes[b]. What a NaN converts to has a
// low byte of 0.
__m256i join_bytes(__m256i b0, __m256i b1, __m256i b2, __m256i b3) {
  const __m256i even = _mm256_set1_epi32(0x00ff00ff);
  // Within each element, bytes 0 and 2 of the one and bytes 0 and 2 of the other, moved up by one.
  const __m256i b02 = _mm256_blend_epi16(b0, _mm256_slli_epi32(b2, 16), 0xaa);
  const __m256i b13 = _mm256_blend_epi16(b1, _mm256_slli_epi32(b3, 16), 0xaa);
  return _mm256_or_si256(_mm256_and_si256(b02, even), _mm256_slli_epi16(b13, 8));
}

__m256i add_bytes(__m256i sums, __m256i codes) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

int32_t sum_of_lanes(__m256i v) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  four = _mm_hadd_epi32(four, four);
  return _mm_cvtsi128_si32(_mm_hadd_epi32(four, four));
}

// |value * inv_scale| < 127.5, or it is NaN with inv_scale 0.
int8_t code(float value, float inv_scale) {
  return static_cast<int8_t>(_mm_cvtss_si32(_mm_set_ss(value * inv_scale)));
}

int32_t quantize_row(const float* dy, int64_t quarter, int64_t count, float inv_scale,
                     int8_t* codes) {
  const __m256 inv = _mm256_set1_ps(inv_scale);
  __m256i sums = _mm256_setzero_si256();
  int64_t r = 0;
  for (; r + 8 <= count; r += 8) {
    __m256i c[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256 v = _mm256_loadu_ps(dy + i * quarter + r);
      c[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v, inv));  // ties to even
    }
    const __m256i bytes = join_bytes(c[0], c[1], c[2], c[3]);
    sums = add_bytes(sums, bytes);
    store(codes + 4 * r, bytes);
  }
  int32_t sum = sum_of_lanes(sums);
  for (; r < count; ++r) {
    for (int64_t i = 0; i < 4; ++i) {
      codes[4 * r + i] = code(dy[i * quarter + r], inv_scale);
      sum += codes[4 * r + i];
    }
  }
  return sum;
}

// kTokenBlock tokens, of which `tokens` exist, of eight columns, of which `count` exist.
void token_block(const float* dy, int64_t tokens, int64_t columns, int64_t count,
                 const float* act_scale, __m256 inv, int8_t* codes, __m256i& sums) {
  const __m256i lanes = first_lanes(count);
  __m256i v[8];
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) {
    __m256i c[4];
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      c[b] = _mm256_setzero_si256();
      const int64_t t = 4 * s + b;
      if (t < tokens) {
        const __m256 value = _mm256_maskload_ps(dy + t * columns, lanes);
        const __m256 folded = _mm256_mul_ps(value, _mm256_set1_ps(act_scale[t]));
        c[b] = _mm256_cvtps_epi32(_mm256_mul_ps(folded, inv));
      }
    }
    v[s] = join_bytes(c[0], c[1], c[2], c[3]);
    sums = add_bytes(sums, v[s]);
  }
  transpose_8x8(v);
#pragma GCC unroll 8
  for (int n = 0; n < 8; ++n) {
    if (n < count) store(codes + n * kGradientTile, v[n]);
  }
}

void quantize_columns(const float* dy, int64_t tokens, int64_t columns, const float* act_scale,
                      const float* inv_scales, int8_t* codes, int32_t* sums) {
  for (int64_t n = 0; n < columns; n += 8) {
    const __m256i lanes = first_lanes(columns - n);
    const __m256 inv = _mm256_maskload_ps(inv_scales + n, lanes);
    __m256i column_sums = _mm256_setzero_si256();
    for (int64_t t = 0; t < tokens; t += kTokenBlock) {
      token_block(dy + t * columns + n, tokens - t, columns, columns - n, act_scale + t, inv,
                  codes + n * kGradientTile + t, column_sums);
    }
    _mm256_maskstore_epi32(sums + n, lanes, column_sums);
  }
}

// --- write-back ---

void store_scaled(const int32_t* acc, int64_t rows, const float* scales, float* y,
                  int64_t y_stride) {
  for (int64_t t = 0; t < rows; ++t) {
    const __m256 scale = _mm256_set1_ps(scales[t]);
    for (int64_t o = 0; o < kGradientPanel; o += 8) {
      const auto* sums = reinterpret_cast<const __m256i*>(acc + t * kGradientPanel + o);
      const __m256 values = _mm256_cvtepi32_ps(_mm256_loadu_si256(sums));
      _mm256_storeu_ps(y + t * y_stride + o, _mm256_mul_ps(scale, values));
    }
  }
}

void add_scaled(const int32_t* acc, int64_t rows, const float* scales, float* y, int64_t y_stride) {
  for (int64_t t = 0; t < rows; ++t) {
    const __m256 scale = _mm256_set1_ps(scales[t]);
    for (int64_t o = 0; o < kGradientPanel; o += 8) {
      const auto* sums = reinterpret_cast<const __m256i*>(acc + t * kGradientPanel + o);
      const __m256 values = _mm256_cvtepi32_ps(_mm256_loadu_si256(sums));
      float* out = y + t * y_stride + o;
      _mm256_storeu_ps(out, _mm256_fmadd_ps(scale, values, _mm256_loadu_ps(out)));
    }
  }
}

}  // namespace

const GradientKernels kGradientAvx2 = {
    .name = "avx2",
    .absmax = absmax,
    .quantize_row = quantize_row,
    .quantize_columns = quantize_columns,
    .store_scaled = store_scaled,
    .add_scaled = add_scaled,
};

}  // namespace bitnet::cpu
