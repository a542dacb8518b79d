// SPDX-License-Identifier: MIT
// The table of integer and quantisation kernels of one instruction set: all that touches 2-bit
// weights or int8 activations. Every table computes the same bits as the scalar one. Only types and
// declarations here: ISA files must share no inline code.
//
// A "packed row" r is one row of the layout of core/quant/ternary.h: byte c holds the codes (trit +
// 1) of column c of the four output rows r + i * quarter, i = 0..3, where quarter = N / 4.
// `columns` of packed rows is a multiple of 64.
#pragma once

#include <cstdint>

#include "core/cpu/cpu_isa.h"

namespace bitnet::cpu {

// How far ahead of its use a stream of weights is fetched into the second-level cache, in bytes;
// packed_dot always does it so. An `ahead` of 0 leaves it to the processor (the instruction stays).
inline constexpr std::int64_t kStreamAhead = 8192;

struct IntegerKernels {
  const char* name;
  std::int64_t token_block;  // the number of tokens for which one call of packed_dot is efficient

  // --- integer product ---
  // acc[t * acc_stride + i] = sum over c of trit(r + i * quarter, c) * x[t * x_stride + c].
  // x_sums[t] is the sum of x[t] over these columns: trit = code - 1. Sums wrap modulo 2^32, hence
  // are exact where the result fits: |x| <= 128, columns < 2^24.
  void (*packed_dot)(const std::uint8_t* packed_row, std::int64_t columns, const std::int8_t* x,
                     std::int64_t x_stride, const std::int32_t* x_sums, std::int64_t tokens,
                     std::int32_t* acc, std::int64_t acc_stride);
  // One token and `rows` packed rows that follow one another in memory, which they are streamed
  // from, fetched `ahead` bytes before they are used:
  //   acc[j * 4 + i] = sum over c of trit(j + i * quarter, c) * x[c]
  void (*packed_rows_dot)(const std::uint8_t* packed, std::int64_t rows, std::int64_t columns,
                          const std::int8_t* x, std::int32_t x_sum, std::int64_t ahead,
                          std::int32_t* acc);
  std::int32_t (*sum_codes)(const std::int8_t* x, std::int64_t columns);

  // From a tile acc [tokens][rows][4] to y, whose element (t, i, j) is y[t * y_stride + i * quarter
  // + j]:
  //   y(t, i, j) = [residual(t, i, j) +] (act_scale[t] * weight_scale) * float(acc[t][j][i])
  // residual lies as y does; it may be null, and may be y.
  void (*store_products)(const std::int32_t* acc, std::int64_t tokens, std::int64_t rows,
                         const float* act_scale, float weight_scale, const float* residual,
                         float* y, std::int64_t y_stride, std::int64_t quarter);
  //   y(t, i, j) = fma(weight_scales[i][j], float(acc[t][j][i]), y(t, i, j)); weight_scales is
  //   [4][rows]
  void (*add_group_products)(const std::int32_t* acc, std::int64_t tokens, std::int64_t rows,
                             const float* weight_scales, float* y, std::int64_t y_stride,
                             std::int64_t quarter);

  // --- activations, any number of columns ---
  // quantize_token() of core/quant; returns act_scale.
  float (*quantize_row)(const float* x, std::int64_t columns, std::int8_t* codes);
  // x = scale * codes
  void (*scale_codes)(const std::int8_t* codes, float scale, std::int64_t columns, float* x);

  // --- weights ---
  // The sums of one tile in the order of core/quant: 16 lanes in double, then a tree.
  double (*sum_tile)(const float* w, std::int64_t count);
  double (*sum_abs_tile)(const float* w, std::int64_t count);
  // One packed row from the four rows w + i * row_stride: ternary_codes() with inv_scales[i], or
  // binary_codes() with means[i].
  void (*pack_ternary)(const float* w, std::int64_t row_stride, std::int64_t columns,
                       const float* inv_scales, std::uint8_t* packed);
  void (*pack_binary)(const float* w, std::int64_t row_stride, std::int64_t columns,
                      const float* means, std::uint8_t* packed);
  // And back: w[i * row_stride + c] = scales[i] * trit(i, c).
  void (*unpack_scaled)(const std::uint8_t* packed, std::int64_t columns, const float* scales,
                        float* w, std::int64_t row_stride);
};

// One per file; only those of this architecture are linked in.
extern const IntegerKernels kIntegerScalar;
extern const IntegerKernels kIntegerAvx2;
extern const IntegerKernels kIntegerAvx512;
extern const IntegerKernels kIntegerNeon;

// The table of an available instruction set; nullptr when this build has none for it.
const IntegerKernels* integer_kernels(Isa isa);

}  // namespace bitnet::cpu
