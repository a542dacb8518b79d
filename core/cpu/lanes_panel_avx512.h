// SPDX-License-Identifier: MIT
// Laying out panels in 512-bit registers, for the tables of AVX-512 and AMX, whose panels hold
// different bytes. Included by files that are compiled for one of them alone; each has its own copy.
//
// `Form` says what a panel holds:
//   static __m512i trits(i, packed)   from the codes of quarter i of each packed byte
//   static __m512i low_trits(codes)   from bytes whose two low bits are a code, the others anything
//   static __m512i values(x)          from signed bytes; values(0) fills up
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "core/cpu/panel_kernels.h"
#include "core/cpu/transpose_avx512.h"

namespace bitnet::cpu {
namespace {

constexpr int kPanelLines = 4;  // registers of 16 outputs in a step

template <typename Form>
void lay_out_forward(const std::uint8_t* packed, std::int64_t row_stride, std::int64_t packed_rows,
                     std::int64_t columns, std::uint8_t* panel) {
  for (std::int64_t c = 0; c < columns; c += 64) {
    __m512i v[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) {
      v[j] = j < packed_rows ? _mm512_loadu_si512(packed + j * row_stride + c)
                             : _mm512_set1_epi8(0x55);  // four codes 1
    }
    transpose_16x16(v);
#pragma GCC unroll 16
    for (int s = 0; s < 16; ++s) {
      std::uint8_t* lines = panel + (c / 4 + s) * kPanelStep;
      _mm512_storeu_si512(lines, Form::template trits<0>(v[s]));
      _mm512_storeu_si512(lines + 64, Form::template trits<1>(v[s]));
      _mm512_storeu_si512(lines + 128, Form::template trits<2>(v[s]));
      _mm512_storeu_si512(lines + 192, Form::template trits<3>(v[s]));
    }
  }
}

template <typename Form>
void lay_out_input_gradient(const std::uint8_t* packed, std::int64_t row_stride,
                            std::int64_t packed_rows, std::uint8_t* panel) {
  for (std::int64_t r = 0; r < packed_rows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kPanelLines; ++i) {
      // A byte abcd (2 bits each) of each 32-bit element; shifted left by 6, 12 and 18 bits its
      // codes c, b and a come to the bottom of bytes 1, 2 and 3.
      const __m512i bytes = _mm512_cvtepu8_epi32(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + r * row_stride + 16 * i)));
      const __m512i low = _mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 6));
      const __m512i high =
          _mm512_or_si512(_mm512_slli_epi32(bytes, 12), _mm512_slli_epi32(bytes, 18));
      _mm512_storeu_si512(panel + r * kPanelStep + 64 * i,
                          Form::low_trits(_mm512_or_si512(low, high)));
    }
  }
}

template <typename Form>
void lay_out_weight_gradient(const std::int8_t* x, std::int64_t row_stride, std::int64_t tokens,
                             std::int8_t* panel) {
  // Element 4 l + v takes element 4 v + l, so that the interleaving within 128-bit lanes below
  // leaves neighbouring columns in each line.
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  for (std::int64_t t = 0; t < tokens; t += 4) {
    __m512i v[4];
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      v[b] = _mm512_setzero_si512();
      if (t + b < tokens) {
        v[b] = _mm512_permutexvar_epi32(order, _mm512_loadu_si512(x + (t + b) * row_stride));
      }
      v[b] = Form::values(v[b]);
    }
    const __m512i lo01 = _mm512_unpacklo_epi8(v[0], v[1]), hi01 = _mm512_unpackhi_epi8(v[0], v[1]);
    const __m512i lo23 = _mm512_unpacklo_epi8(v[2], v[3]), hi23 = _mm512_unpackhi_epi8(v[2], v[3]);
    std::int8_t* lines = panel + t / 4 * kPanelStep;
    _mm512_storeu_si512(lines, _mm512_unpacklo_epi16(lo01, lo23));
    _mm512_storeu_si512(lines + 64, _mm512_unpackhi_epi16(lo01, lo23));
    _mm512_storeu_si512(lines + 128, _mm512_unpacklo_epi16(hi01, hi23));
    _mm512_storeu_si512(lines + 192, _mm512_unpackhi_epi16(hi01, hi23));
  }
}

// PanelKernels::store_products, the same for both.
inline void store_panel_products(const std::int32_t* acc, std::int64_t tokens,
                                 std::int64_t packed_rows, const float* act_scale,
                                 float weight_scale, const float* residual, float* y,
                                 std::int64_t y_stride, std::int64_t quarter) {
  const auto mask = static_cast<__mmask16>((1u << packed_rows) - 1);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const __m512 scale = _mm512_set1_ps(act_scale[t] * weight_scale);
#pragma GCC unroll 4
    for (int i = 0; i < kPanelLines; ++i) {
      const std::int64_t place = t * y_stride + i * quarter;
      const __m512i sums = _mm512_loadu_si512(acc + t * kPanelWidth + 16 * i);
      __m512 out = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sums));
      if (residual != nullptr) {
        out = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, residual + place), out);
      }
      _mm512_mask_storeu_ps(y + place, mask, out);
    }
  }
}

}  // namespace
}  // namespace bitnet::cpu
