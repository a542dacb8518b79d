// SPDX-License-Identifier: MIT
// Integer products of many rows: one operand is laid out once as a panel that stays in the first-
// or second-level cache while the rows of the other pass by. Every table computes the same
// integers.
//
// A panel holds kPanelWidth outputs: unsigned codes 0..2 or signed values, in steps of four
// elements of the contraction:  panel[step][output][4], 256 bytes a step. A vector register so
// holds neighbouring outputs, and four bytes of a row are broadcast to all of them.
// Only types and declarations here: ISA files must share no inline code.
#pragma once

#include <cstdint>

#include "core/cpu/cpu_isa.h"

namespace bitnet::cpu {

inline constexpr std::int64_t kPanelWidth = 64;              // outputs of a panel
inline constexpr std::int64_t kPanelStep = kPanelWidth * 4;  // bytes of a step

struct PanelKernels {
  const char* name;
  // Rows that a call works on together: of a multiple of it none is left over. The rows of a block
  // pass all panels of a tile before the next ones do.
  std::int64_t block_rows;

  // --- products ---
  // A thread calls products between these two (PanelScope, panel_scope.h); null where a table needs
  // neither. AMX: the shape of the tile registers.
  void (*begin_products)();
  void (*end_products)();
  // acc[t * kPanelWidth + o] = [accumulate: its old value +] sum over s < steps, b < 4 of
  //   trit(panel[s][o][b]) * rows[t * row_stride + 4 s + b]      trit = code - 1, code 0..2
  // row_sums[t]: the sum of the row over these 4 * steps elements; not read by a table without
  // row_sums(). Sums wrap modulo 2^32, hence are
  // exact where the result fits: |row| <= 128, 4 * steps < 2^24.
  void (*ternary_products)(const std::uint8_t* panel, std::int64_t steps, const std::int8_t* rows,
                           std::int64_t row_stride, const std::int32_t* row_sums,
                           std::int64_t row_count, bool accumulate, std::int32_t* acc);
  // The same for a panel of signed values -127..127, which weight_gradient_panel makes:
  //   sum of panel[s][o][b] * rows[t * row_stride + 4 s + b],  |row| <= 127, 4 * steps <= 2^16.
  void (*signed_products)(const std::int8_t* panel, std::int64_t steps, const std::int8_t* rows,
                          std::int64_t row_stride, const std::int32_t* row_sums,
                          std::int64_t row_count, bool accumulate, std::int32_t* acc);

  // sums[t] = sum over c < columns (a multiple of 64) of rows[t * row_stride + c]
  // Null where the products need no sums.
  void (*row_sums)(const std::int8_t* rows, std::int64_t row_stride, std::int64_t columns,
                   std::int64_t row_count, std::int32_t* sums);

  // --- panels of packed ternary weights (core/quant/ternary.h) ---
  // "code" stands for what this table's ternary_products takes: the code 0..2, or (AMX) the signed
  // trit.
  // Outputs of a forward product: 16 packed rows, `columns` (a multiple of 64) columns of each.
  // Output 16 i + j is row j of quarter i: panel[s][16 i + j][b] = code(i, row j, column 4 s + b).
  // packed_rows < 16 leaves the missing rows' codes 1 (trit 0).
  void (*forward_panel)(const std::uint8_t* packed, std::int64_t row_stride,
                        std::int64_t packed_rows, std::int64_t columns, std::uint8_t* panel);
  // Outputs of dx = dy · ŵ: 64 columns of `packed_rows` packed rows, a step being the four outputs
  // of a packed row:  panel[r][c][i] = code(i, row r, column c).
  void (*input_gradient_panel)(const std::uint8_t* packed, std::int64_t row_stride,
                               std::int64_t packed_rows, std::uint8_t* panel);
  // Outputs of dw = dyᵀ · x: 64 columns of `tokens` rows of codes, a step being four tokens:
  //   panel[s][c][b] = x[(4 s + b) * row_stride + c], 0 beyond the last token.
  // The bytes are in the form that this table's signed_products takes: the value, or (AVX-512) value + 128.
  void (*weight_gradient_panel)(const std::int8_t* x, std::int64_t row_stride, std::int64_t tokens,
                                std::int8_t* panel);

  // --- write-back ---
  // A block of a forward product, acc [tokens][kPanelWidth] of a forward panel of `packed_rows`
  // rows:
  //   y[t * y_stride + i * quarter + j] = [residual[same place] +] (act_scale[t] * weight_scale) *
  //   float(acc[t][16 i + j])
  // residual may be null, and may be y.
  void (*store_products)(const std::int32_t* acc, std::int64_t tokens, std::int64_t packed_rows,
                         const float* act_scale, float weight_scale, const float* residual,
                         float* y, std::int64_t y_stride, std::int64_t quarter);
};

// One per file; only those of this architecture are linked in.
extern const PanelKernels kPanelScalar;
extern const PanelKernels kPanelAvx2;
extern const PanelKernels kPanelAvx512;
extern const PanelKernels kPanelAmx;
extern const PanelKernels kPanelNeon;

// The table of an available instruction set; nullptr when this build has none for it.
const PanelKernels* panel_kernels(Isa isa);

}  // namespace bitnet::cpu
