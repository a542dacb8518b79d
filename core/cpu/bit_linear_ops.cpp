// SPDX-License-Identifier: MIT
// The integer product of the CPU backend: int8 activations times packed ternary weights.
#include <algorithm>

#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/integer_kernels.h"
#include "core/cpu/packed_shape.h"

namespace bitnet::cpu {
namespace {

constexpr std::int64_t kTaskProducts = 1 << 19;  // products of a bit_linear task, at least
constexpr std::int64_t kRowTile = 64;            // packed rows of a tile: 256 outputs
constexpr std::int64_t kTokenTile = 96;          // a multiple of every kernel's token_block
constexpr std::int64_t kMaxTokenBlock = 8;       // checked against the kernels' token_block

// The operands of bit_linear as plain pointers.
struct BitLinearTask {
  const IntegerKernels& kernels;
  PackedShape shape;
  const std::int8_t* codes;
  const float* act_scale;
  const std::uint8_t* packed;
  const float* weight_scale;
  float* y;

  // Outputs of the packed rows [row, row + rows) for the tokens [token, token + tokens): rows <=
  // kRowTile. A block of tokens at a time, so that its activations stay in the first-level cache
  // while the rows pass by.
  void tile(std::int64_t row, std::int64_t rows, std::int64_t token, std::int64_t tokens) const {
    for (std::int64_t t = 0; t < tokens; t += kernels.token_block) {
      const std::int64_t count = std::min(kernels.token_block, tokens - t);
      if (shape.single_scale) {
        block_single_scale(row, rows, token + t, count);
      } else {
        block_grouped(row, rows, token + t, count);
      }
    }
  }

 private:
  void block_single_scale(std::int64_t row, std::int64_t rows, std::int64_t token,
                          std::int64_t tokens) const {
    std::int32_t products[kMaxTokenBlock * kRowTile * 4];
    dot(row, rows, token, tokens, 0, products);
    kernels.store_products(products, tokens, rows, act_scale + token, *weight_scale,
                           y + token * shape.outputs + row, shape.outputs, shape.quarter);
  }

  void block_grouped(std::int64_t row, std::int64_t rows, std::int64_t token,
                     std::int64_t tokens) const {
    std::int32_t products[kMaxTokenBlock * kRowTile * 4];
    float scales[4 * kRowTile];
    for_each_output(row, rows, token, tokens, [](float& sum, std::int64_t) { sum = 0; });
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      dot(row, rows, token, tokens, g, products);
      for (std::int64_t i = 0; i < 4; ++i) {
        for (std::int64_t j = 0; j < rows; ++j) {
          scales[i * rows + j] = weight_scale[(i * shape.quarter + row + j) * shape.groups + g];
        }
      }
      kernels.add_group_products(products, tokens, rows, scales, y + token * shape.outputs + row,
                                 shape.outputs, shape.quarter);
    }
    for_each_output(row, rows, token, tokens,
                    [this](float& sum, std::int64_t t) { sum *= act_scale[t]; });
  }

  template <typename Visit>
  void for_each_output(std::int64_t row, std::int64_t rows, std::int64_t token, std::int64_t tokens,
                       const Visit& visit) const {
    for (std::int64_t t = token; t < token + tokens; ++t) {
      for (std::int64_t i = 0; i < 4; ++i) {
        float* outputs = y + t * shape.outputs + i * shape.quarter + row;
        for (std::int64_t j = 0; j < rows; ++j) visit(outputs[j], t);
      }
    }
  }

  // products [tokens, rows, 4] over the columns of group g.
  void dot(std::int64_t row, std::int64_t rows, std::int64_t token, std::int64_t tokens,
           std::int64_t g, std::int32_t* products) const {
    const std::int64_t column = g * shape.group_size;
    const std::int8_t* x = codes + token * shape.inputs + column;
    std::int32_t x_sums[kMaxTokenBlock];
    for (std::int64_t t = 0; t < tokens; ++t) {
      x_sums[t] = kernels.sum_codes(x + t * shape.inputs, shape.group_size);
    }
    for (std::int64_t j = 0; j < rows; ++j) {
      kernels.packed_dot(packed + (row + j) * shape.inputs + column, shape.group_size, x,
                         shape.inputs, x_sums, tokens, products + j * 4, rows * 4);
    }
  }
};

}  // namespace

PackedShape packed_shape(ConstTensorView packed, ConstTensorView weight_scale) {
  BITNET_CHECK(packed.dtype() == DType::u8 && packed.shape().rank() == 2 && packed.dim(1) % 64 == 0,
               "packed weights are {} {}, expected u8 [N / 4, K] with K a multiple of 64",
               bitnet::to_string(packed.dtype()), packed.shape().to_string());
  const std::int64_t outputs = packed.dim(0) * 4, inputs = packed.dim(1);
  if (weight_scale.shape() == Shape{1}) return {outputs, inputs, outputs / 4, 1, inputs, true};
  const bool per_row = weight_scale.shape().rank() == 2 && weight_scale.dim(0) == outputs;
  const std::int64_t groups = per_row ? weight_scale.dim(1) : 0;
  BITNET_CHECK(
      groups >= 1 && inputs % (groups * 64) == 0,
      "weight scales {} for [{}, {}] weights, expected [1] or [N, groups] with groups of a "
      "multiple of 64 columns",
      weight_scale.shape().to_string(), outputs, inputs);
  return {outputs, inputs, outputs / 4, groups, inputs / groups, false};
}

void CpuBackend::bit_linear(ConstTensorView codes, ConstTensorView act_scale,
                            ConstTensorView packed, ConstTensorView weight_scale, TensorView y) {
  BITNET_CHECK(integer_->token_block <= kMaxTokenBlock, "a token block of {}, expected at most {}",
               integer_->token_block, kMaxTokenBlock);
  const PackedShape shape = packed_shape(packed, weight_scale);
  BITNET_CHECK(codes.shape().rank() == 2 && codes.dim(1) == shape.inputs &&
                   act_scale.elements() == codes.dim(0) &&
                   y.shape() == (Shape{codes.dim(0), shape.outputs}),
               "codes {}, act_scale {}, packed {}, y {}: expected [rows, K], [rows], [N / 4, K], "
               "[rows, N]",
               codes.shape().to_string(), act_scale.shape().to_string(), packed.shape().to_string(),
               y.shape().to_string());
  const std::int64_t tokens = codes.dim(0);
  const BitLinearTask task{*integer_,
                           shape,
                           codes.as<std::int8_t>().data(),
                           act_scale.as<float>().data(),
                           packed.as<std::uint8_t>().data(),
                           weight_scale.as<float>().data(),
                           y.as<float>().data()};
  const std::int64_t row_tiles = tile_count(shape.quarter, kRowTile);
  const std::int64_t token_tiles = tile_count(tokens, kTokenTile);
  // Small tiles (decoding a small model) are joined, so that waking a thread pays.
  const std::int64_t tile_products = std::max<std::int64_t>(
      4 * std::min(kRowTile, shape.quarter) * std::min(kTokenTile, tokens) * shape.inputs, 1);
  const std::int64_t tiles_per_task = tile_count(kTaskProducts, tile_products);
  const std::int64_t tiles = row_tiles * token_tiles;
  team_.run(tile_count(tiles, tiles_per_task), [&](std::int64_t index) {
    const std::int64_t first = index * tiles_per_task;
    for (std::int64_t t = first; t < std::min(first + tiles_per_task, tiles); ++t) {
      const std::int64_t row = t % row_tiles * kRowTile, token = t / row_tiles * kTokenTile;
      task.tile(row, std::min(kRowTile, shape.quarter - row), token,
                std::min(kTokenTile, tokens - token));
    }
  });
}

}  // namespace bitnet::cpu
