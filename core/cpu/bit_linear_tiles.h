// SPDX-License-Identifier: MIT
// The forward product of a BitLinear, a tile of packed rows by tokens at a time, in the three ways
// that bit_linear() chooses from. All compute the same integers. Scratch is on the
// stack: 1.1 MB for a panel tile (512 KB of panels, 528 KB of sums), 34 KB at most for the others.
#pragma once

#include <cstdint>

#include "core/backend/packed_shape.h"
#include "core/cpu/integer_kernels.h"
#include "core/cpu/panel_kernels.h"

namespace bitnet::cpu {

// The largest tiles.
inline constexpr std::int64_t kMaxTokenBlock = 8;  // tokens of a kernel's call, in every table
inline constexpr std::int64_t kStreamTile = 1024;  // packed rows by such tokens of a stream tile
inline constexpr std::int64_t kGroupedRows = 128;  // packed rows of a grouped tile
inline constexpr std::int64_t kPanelRows = 16;     // packed rows of a panel,
inline constexpr std::int64_t kTilePanels = 8;     //   panels and
inline constexpr std::int64_t kPanelTokens = 264;  //   tokens of a panel tile

// The operands of a product as plain pointers.
struct BitLinearOperands {
  const IntegerKernels* kernels;
  const PanelKernels* panels;
  PackedShape shape;
  std::int64_t ahead;          // of packed_rows_dot(): one token, a single scale
  const std::int8_t* codes;    // [tokens, K]
  const float* act_scale;      // [tokens]
  const std::uint8_t* packed;  // [N / 4, K]
  const float* weight_scale;   // [1] or [N, groups]
  const float* residual;       // [tokens, N] or null
  float* y;                    // [tokens, N]
};

// A tile: outputs of the packed rows [row, row + rows) for the tokens [token, token + tokens).
// code_sums: of all tokens' codes, for a stream tile; else null.
struct BitLinearTile {
  std::int64_t row, rows, token, tokens;
  const std::int32_t* code_sums = nullptr;
};

// Few tokens, a single scale: the packed rows are streamed once for each block of tokens.
// rows * min(tokens, kMaxTokenBlock) <= kStreamTile.
void stream_tile(const BitLinearOperands& operands, const BitLinearTile& tile);
// The same with a scale for each group of columns. rows <= kGroupedRows.
void grouped_tile(const BitLinearOperands& operands, const BitLinearTile& tile);
// Many tokens, a single scale: the packed rows are unpacked once into panels that stay in the
// cache. rows <= kTilePanels * kPanelRows, tokens <= kPanelTokens.
void panel_tile(const BitLinearOperands& operands, const BitLinearTile& tile);

}  // namespace bitnet::cpu
