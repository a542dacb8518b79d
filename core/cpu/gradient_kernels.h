// SPDX-License-Identifier: MIT
// What the integer gradients of a BitLinear need beside the products of panel_kernels.h: dy as
// int8, once by rows for dx and once by columns for dw, and the write-back. Every table computes
// the same bits (of a NaN only that it is one).
//
// A gradient is rounded as quantize_token() rounds an activation, ties to even, but with a lower
// bound of its own: gradients of a mean loss are far below kScaleEps.
//   scale = max(absmax, kGradientEps) / 127,  inv_scale = 127 / max(absmax, kGradientEps)
//   codes = round(value * inv_scale)
// inv_scale = 0 stands for a NaN or infinite absmax: the codes are then 0, and the scale, which is
// not finite, makes every product NaN.
// Only types and declarations here: ISA files must share no inline code.
#pragma once

#include <cstdint>

#include "core/cpu/cpu_isa.h"

namespace bitnet::cpu {

inline constexpr float kGradientEps = 0x1p-100f;    // keeps 127 / absmax finite
inline constexpr std::int64_t kGradientTile = 256;  // tokens that share a column's scale
inline constexpr std::int64_t kGradientPanel = 64;  // columns of a write-back: kPanelWidth

struct GradientKernels {
  const char* name;

  // Of dy [tokens, columns], columns a multiple of 4:
  //   row_absmax[t] = max over n of |dy[t][n]|
  //   column_absmax[n] = max of its old value and, over t, |dy[t][n] * act_scale[t]|
  // NaN counts as larger than infinity.
  void (*absmax)(const float* dy, std::int64_t tokens, std::int64_t columns, const float* act_scale,
                 float* row_absmax, float* column_absmax);
  // `count` elements of each quarter of a row dy, in the order in which input_gradient_panel
  // contracts:  codes[4 r + i] = round(dy[i * quarter + r] * inv_scale),  r < count
  // Returns the sum of these codes.
  std::int32_t (*quantize_row)(const float* dy, std::int64_t quarter, std::int64_t count,
                               float inv_scale, std::int8_t* codes);
  // dy [tokens, columns] transposed; at most kGradientTile tokens:
  //   codes[n * kGradientTile + t] = round((dy[t][n] * act_scale[t]) * inv_scales[n])
  // and 0 from `tokens` to the next multiple of 4 at least. sums[n]: the sum of a column's codes.
  void (*quantize_columns)(const float* dy, std::int64_t tokens, std::int64_t columns,
                           const float* act_scale, const float* inv_scales, std::int8_t* codes,
                           std::int32_t* sums);

  // acc [rows][kGradientPanel] to y, whose rows are y_stride apart:
  //   y[t][o] = scales[t] * float(acc[t][o])             store_scaled
  //   y[t][o] = fma(scales[t], float(acc[t][o]), y[t][o])  add_scaled
  void (*store_scaled)(const std::int32_t* acc, std::int64_t rows, const float* scales, float* y,
                       std::int64_t y_stride);
  void (*add_scaled)(const std::int32_t* acc, std::int64_t rows, const float* scales, float* y,
                     std::int64_t y_stride);
};

// One per file; only those of this architecture are linked in.
extern const GradientKernels kGradientScalar;
extern const GradientKernels kGradientAvx2;
extern const GradientKernels kGradientAvx512;
extern const GradientKernels kGradientNeon;

// The table of an available instruction set; nullptr when this build has none for it.
const GradientKernels* gradient_kernels(Isa isa);

}  // namespace bitnet::cpu
