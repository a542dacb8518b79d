// SPDX-License-Identifier: MIT
#include "core/cpu/bit_linear_tiles.h"

#include <algorithm>

#include "core/base/parallel.h"
#include "core/cpu/panel_scope.h"

namespace bitnet::cpu {
namespace {

// Columns of a panel: 8 panels of 64 KB stay in the second-level cache, with the sums of 264
// tokens.
constexpr std::int64_t kPanelColumns = 1024;

// Calls body(first token, count) for blocks of as many tokens as a kernel call takes.
template <typename Body>
void for_each_token_block(const BitLinearOperands& o, const BitLinearTile& tile, const Body& body) {
  const std::int64_t block = std::min(o.kernels->token_block, kMaxTokenBlock);
  for (std::int64_t t = 0; t < tile.tokens; t += block) {
    body(tile.token + t, std::min(block, tile.tokens - t));
  }
}

// products [tokens, rows, 4] over `columns` columns from `column` on: all of them in a stream tile,
// a group otherwise.
void dot(const BitLinearOperands& o, const BitLinearTile& tile, std::int64_t token,
         std::int64_t tokens, std::int64_t column, std::int64_t columns, std::int32_t* products) {
  const std::int64_t inputs = o.shape.inputs;
  const std::int8_t* x = o.codes + token * inputs + column;
  const std::uint8_t* packed = o.packed + tile.row * inputs + column;
  std::int32_t group_sums[kMaxTokenBlock];
  const std::int32_t* x_sums = group_sums;
  if (tile.code_sums != nullptr) {
    x_sums = tile.code_sums + token;
  } else {
    for (std::int64_t t = 0; t < tokens; ++t) {
      group_sums[t] = o.kernels->sum_codes(x + t * inputs, columns);
    }
  }
  if (tokens == 1 && columns == inputs) {
    o.kernels->packed_rows_dot(packed, tile.rows, columns, x, x_sums[0], o.ahead, products);
    return;
  }
  for (std::int64_t j = 0; j < tile.rows; ++j) {
    o.kernels->packed_dot(packed + j * inputs, columns, x, inputs, x_sums, tokens, products + j * 4,
                          tile.rows * 4);
  }
}

const float* residual_at(const BitLinearOperands& o, std::int64_t place) {
  return o.residual != nullptr ? o.residual + place : nullptr;
}

}  // namespace

void stream_tile(const BitLinearOperands& o, const BitLinearTile& tile) {
  alignas(64) std::int32_t products[kStreamTile * 4];
  for_each_token_block(o, tile, [&](std::int64_t token, std::int64_t tokens) {
    dot(o, tile, token, tokens, 0, o.shape.inputs, products);
    const std::int64_t place = token * o.shape.outputs + tile.row;
    o.kernels->store_products(products, tokens, tile.rows, o.act_scale + token, *o.weight_scale,
                              residual_at(o, place), o.y + place, o.shape.outputs, o.shape.quarter);
  });
}

void grouped_tile(const BitLinearOperands& o, const BitLinearTile& tile) {
  const PackedShape& shape = o.shape;
  const std::int64_t rows = tile.rows;
  std::int32_t products[kMaxTokenBlock * kGroupedRows * 4];
  float sums[kMaxTokenBlock * kGroupedRows * 4];  // [tokens][4][rows]
  float scales[kGroupedRows * 4];                 // [4][rows]
  for_each_token_block(o, tile, [&](std::int64_t token, std::int64_t tokens) {
    std::fill(sums, sums + tokens * 4 * rows, 0.0f);
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      dot(o, tile, token, tokens, g * shape.group_size, shape.group_size, products);
      for (std::int64_t i = 0; i < 4; ++i) {
        for (std::int64_t j = 0; j < rows; ++j) {
          const std::int64_t output = i * shape.quarter + tile.row + j;
          scales[i * rows + j] = o.weight_scale[output * shape.groups + g];
        }
      }
      o.kernels->add_group_products(products, tokens, rows, scales, sums, 4 * rows, rows);
    }
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t i = 0; i < 4; ++i) {
        const std::int64_t place = (token + t) * shape.outputs + i * shape.quarter + tile.row;
        for (std::int64_t j = 0; j < rows; ++j) {
          const float product = sums[(t * 4 + i) * rows + j] * o.act_scale[token + t];
          o.y[place + j] = o.residual != nullptr ? o.residual[place + j] + product : product;
        }
      }
    }
  });
}

void panel_tile(const BitLinearOperands& o, const BitLinearTile& tile) {
  alignas(64) std::uint8_t panel[kTilePanels][kPanelColumns / 4 * kPanelStep];
  alignas(64) std::int32_t products[kTilePanels][kPanelTokens * kPanelWidth];
  std::int32_t row_sums[kPanelTokens];
  const PanelScope scope(*o.panels);
  const std::int64_t inputs = o.shape.inputs;
  const std::int64_t panels = tile_count(tile.rows, kPanelRows);
  // The activations of a block of tokens stay in the first-level cache while they pass all panels,
  // and their outputs are written in between products, which hide it.
  const std::int64_t block = o.panels->block_rows;
  const std::int64_t blocks = tile_count(tile.tokens, block);
  // Equal stretches of the contraction rather than a short last one.
  const std::int64_t stretches = tile_count(inputs, kPanelColumns);
  const std::int64_t stretch = tile_count(inputs, stretches * 64) * 64;
  for (std::int64_t column = 0; column < inputs; column += stretch) {
    const std::int64_t columns = std::min(stretch, inputs - column);
    const bool last = column + columns == inputs;
    const std::int8_t* x = o.codes + tile.token * inputs + column;
    const std::uint8_t* packed = o.packed + tile.row * inputs + column;
    if (o.panels->row_sums != nullptr) {
      o.panels->row_sums(x, inputs, columns, tile.tokens, row_sums);
    }
    for (std::int64_t p = 0; p < panels; ++p) {
      o.panels->forward_panel(packed + p * kPanelRows * inputs, inputs,
                              std::min(kPanelRows, tile.rows - p * kPanelRows), columns, panel[p]);
    }
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t t = b * block, token = tile.token + t;
      const std::int64_t tokens = std::min(block, tile.tokens - t);
      for (std::int64_t p = 0; p < panels; ++p) {
        // With a single stretch the sums need no memory beyond a block's.
        std::int32_t* acc = products[p] + (stretches > 1 ? t * kPanelWidth : 0);
        o.panels->ternary_products(panel[p], columns / 4, x + t * inputs, inputs, row_sums + t,
                                   tokens, column > 0, acc);
        if (!last) continue;
        const std::int64_t row = tile.row + p * kPanelRows;
        const std::int64_t place = token * o.shape.outputs + row;
        o.panels->store_products(acc, tokens, std::min(kPanelRows, tile.row + tile.rows - row),
                                 o.act_scale + token, *o.weight_scale, residual_at(o, place),
                                 o.y + place, o.shape.outputs, o.shape.quarter);
      }
    }
  }
}

}  // namespace bitnet::cpu
