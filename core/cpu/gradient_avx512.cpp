// SPDX-License-Identifier: MIT
// Gradient kernels for AVX-512 with VNNI.
#include <immintrin.h>

#include <cstdint>

#include "core/cpu/gradient_kernels.h"
#include "core/cpu/transpose_avx512.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;

constexpr int64_t kTokenBlock = 64;  // tokens of a transposed line of codes

__mmask16 first_lanes(int64_t count) {
  return count >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << count) - 1);
}

// --- absmax ---

// The bits of non-negative floats order like integers, with infinity above all numbers and NaN
// above infinity.
__m512i larger_magnitude(__m512i magnitude, __m512 x) {
  const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
  return _mm512_max_epi32(magnitude, bits);
}

float max_of_lanes(__m512i magnitudes) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(magnitudes))));
}

template <int kRows>
void absmax_rows(const float* dy, int64_t columns, const float* act_scale, float* row_absmax,
                 float* column_absmax) {
  __m512i rows[kRows];
  __m512 scales[kRows];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
    rows[t] = _mm512_setzero_si512();
    scales[t] = _mm512_set1_ps(act_scale[t]);
  }
  for (int64_t n = 0; n < columns; n += 16) {
    const __mmask16 lanes = first_lanes(columns - n);
    __m512i column = _mm512_maskz_loadu_epi32(lanes, column_absmax + n);
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      const float* row = dy + t * columns + n;
      // The next rows, which come from memory: each of these streams is short.
      _mm_prefetch(reinterpret_cast<const char*>(row + kRows * columns), _MM_HINT_T0);
      const __m512 v = _mm512_maskz_loadu_ps(lanes, row);
      rows[t] = larger_magnitude(rows[t], v);
      column = larger_magnitude(column, _mm512_mul_ps(v, scales[t]));
    }
    _mm512_mask_storeu_epi32(column_absmax + n, lanes, column);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) row_absmax[t] = max_of_lanes(rows[t]);
}

void absmax(const float* dy, int64_t tokens, int64_t columns, const float* act_scale,
            float* row_absmax, float* column_absmax) {
  int64_t t = 0;
  for (; t + 8 <= tokens; t += 8) {
    absmax_rows<8>(dy + t * columns, columns, act_scale + t, row_absmax + t, column_absmax);
  }
  for (; t < tokens; ++t) {
    absmax_rows<1>(dy + t * columns, columns, act_scale + t, row_absmax + t, column_absmax);
  }
}

// --- codes ---

// Byte b of each element is the low byte of that element of codes[b]. What a NaN converts to has a
// low byte of 0.
__m512i join_bytes(__m512i b0, __m512i b1, __m512i b2, __m512i b3) {
  const __m512i low = _mm512_set1_epi32(0xff), pair = _mm512_set1_epi32(0xffff);
  constexpr int kSelect = 0xca;  // a ? b : c, bit by bit
  const __m512i b01 = _mm512_ternarylogic_epi32(low, b0, _mm512_slli_epi32(b1, 8), kSelect);
  const __m512i b23 = _mm512_ternarylogic_epi32(low, b2, _mm512_slli_epi32(b3, 8), kSelect);
  return _mm512_ternarylogic_epi32(pair, b01, _mm512_slli_epi32(b23, 16), kSelect);
}

__m512i add_bytes(__m512i sums, __m512i codes) {
  return _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), codes);
}

int32_t quantize_row(const float* dy, int64_t quarter, int64_t count, float inv_scale,
                     int8_t* codes) {
  const __m512 inv = _mm512_set1_ps(inv_scale);
  __m512i sums = _mm512_setzero_si512();
  for (int64_t r = 0; r < count; r += 16) {
    const __mmask16 lanes = first_lanes(count - r);
    __m512i c[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512 v = _mm512_maskz_loadu_ps(lanes, dy + i * quarter + r);
      c[i] = _mm512_cvtps_epi32(_mm512_mul_ps(v, inv));  // ties to even
    }
    const __m512i bytes = join_bytes(c[0], c[1], c[2], c[3]);
    sums = add_bytes(sums, bytes);
    _mm512_mask_storeu_epi32(codes + 4 * r, lanes, bytes);
  }
  return _mm512_reduce_add_epi32(sums);
}

// Four tokens of 16 columns: element n holds the bytes of column n.
template <bool kWhole>
__m512i four_tokens(const float* dy, int64_t tokens, int64_t columns, __mmask16 lanes,
                    const float* act_scale, __m512 inv) {
  __m512i c[4];
#pragma GCC unroll 4
  for (int b = 0; b < 4; ++b) {
    if (kWhole || b < tokens) {
      const __m512 v = _mm512_maskz_loadu_ps(lanes, dy + b * columns);
      const __m512 folded = _mm512_mul_ps(v, _mm512_set1_ps(act_scale[b]));
      c[b] = _mm512_cvtps_epi32(_mm512_mul_ps(folded, inv));
    } else {
      c[b] = _mm512_setzero_si512();
    }
  }
  return join_bytes(c[0], c[1], c[2], c[3]);
}

// kTokenBlock tokens, of which `tokens` exist, of 16 columns, of which `count` exist.
template <bool kWhole>
void token_block(const float* dy, int64_t tokens, int64_t columns, int64_t count,
                 const float* act_scale, const float* inv_scales, int8_t* codes, int32_t* sums) {
  const __mmask16 lanes = first_lanes(count);
  const __m512 inv = _mm512_maskz_loadu_ps(lanes, inv_scales);
  __m512i column_sums = _mm512_maskz_loadu_epi32(lanes, sums);
  __m512i v[16];
#pragma GCC unroll 16
  for (int s = 0; s < 16; ++s) {
    v[s] = four_tokens<kWhole>(dy + 4 * s * columns, tokens - 4 * s, columns, lanes,
                               act_scale + 4 * s, inv);
    column_sums = add_bytes(column_sums, v[s]);
  }
  _mm512_mask_storeu_epi32(sums, lanes, column_sums);
  transpose_16x16(v);
#pragma GCC unroll 16
  for (int n = 0; n < 16; ++n) {
    if (n < count) _mm512_storeu_si512(codes + n * kGradientTile, v[n]);
  }
}

// A block of tokens at a time, so that few pages are walked at once.
void quantize_columns(const float* dy, int64_t tokens, int64_t columns, const float* act_scale,
                      const float* inv_scales, int8_t* codes, int32_t* sums) {
  for (int64_t n = 0; n < columns; ++n) sums[n] = 0;
  for (int64_t t = 0; t < tokens; t += kTokenBlock) {
    for (int64_t n = 0; n < columns; n += 16) {
      const int64_t count = columns - n < 16 ? columns - n : 16;
      const float* block = dy + t * columns + n;
      int8_t* out = codes + n * kGradientTile + t;
      if (tokens - t >= kTokenBlock) {
        token_block<true>(block, kTokenBlock, columns, count, act_scale + t, inv_scales + n, out,
                          sums + n);
      } else {
        token_block<false>(block, tokens - t, columns, count, act_scale + t, inv_scales + n, out,
                           sums + n);
      }
    }
  }
}

// --- write-back ---

void store_scaled(const int32_t* acc, int64_t rows, const float* scales, float* y,
                  int64_t y_stride) {
  for (int64_t t = 0; t < rows; ++t) {
    const __m512 scale = _mm512_set1_ps(scales[t]);
#pragma GCC unroll 4
    for (int o = 0; o < kGradientPanel; o += 16) {
      const __m512 sums = _mm512_cvtepi32_ps(_mm512_loadu_si512(acc + t * kGradientPanel + o));
      _mm512_storeu_ps(y + t * y_stride + o, _mm512_mul_ps(scale, sums));
    }
  }
}

void add_scaled(const int32_t* acc, int64_t rows, const float* scales, float* y, int64_t y_stride) {
  for (int64_t t = 0; t < rows; ++t) {
    const __m512 scale = _mm512_set1_ps(scales[t]);
#pragma GCC unroll 4
    for (int o = 0; o < kGradientPanel; o += 16) {
      float* out = y + t * y_stride + o;
      const __m512 sums = _mm512_cvtepi32_ps(_mm512_loadu_si512(acc + t * kGradientPanel + o));
      _mm512_storeu_ps(out, _mm512_fmadd_ps(scale, sums, _mm512_loadu_ps(out)));
    }
  }
}

}  // namespace

const GradientKernels kGradientAvx512 = {
    .name = "avx512vnni",
    .absmax = absmax,
    .quantize_row = quantize_row,
    .quantize_columns = quantize_columns,
    .store_scaled = store_scaled,
    .add_scaled = add_scaled,
};

}  // namespace bitnet::cpu
