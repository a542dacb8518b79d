// SPDX-License-Identifier: MIT
// The output head in int8.
#include <algorithm>

#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/head_kernels.h"

namespace bitnet::cpu {
namespace {

constexpr std::int64_t kMaxColumns = 1 << 16;
// Weights of a tile: few enough for the second-level cache, where many tokens find them again, and
// enough for one token to hide the hand-out of tasks.
constexpr std::int64_t kTileBytes = 1 << 18;
constexpr std::int64_t kTokenTile = 64;

}  // namespace

void CpuBackend::int8_linear(ConstTensorView codes, ConstTensorView act_scale,
                             ConstTensorView weights, ConstTensorView row_scale, TensorView y) {
  BITNET_CHECK(
      codes.shape().rank() == 2 && weights.shape().rank() == 2 && codes.dim(1) == weights.dim(1) &&
          weights.elements() > 0 && codes.dim(1) <= kMaxColumns &&
          act_scale.elements() == codes.dim(0) && row_scale.elements() == weights.dim(0) &&
          y.shape() == (Shape{codes.dim(0), weights.dim(0)}),
      "codes {}, act_scale {}, weights {}, row_scale {}, y {}: expected [rows, K], "
      "[rows], [N, K], [N], [rows, N] with K <= {}",
      codes.shape().to_string(), act_scale.shape().to_string(), weights.shape().to_string(),
      row_scale.shape().to_string(), y.shape().to_string(), kMaxColumns);
  const std::int64_t tokens = codes.dim(0), inputs = codes.dim(1), outputs = weights.dim(0);
  const std::int8_t *x = codes.as<std::int8_t>().data(), *w = weights.as<std::int8_t>().data();
  const float *token_scales = act_scale.as<float>().data(), *scales = row_scale.as<float>().data();
  float* to = y.as<float>().data();
  const std::int64_t row_tile = tile_count(outputs, tile_count(outputs * inputs, kTileBytes));
  const std::int64_t row_tiles = tile_count(outputs, row_tile);
  const ThreadScratch<std::int32_t> scratch(thread_scratch_, team_,
                                            row_tile * std::min(kTokenTile, tokens));
  team_.run(row_tiles * tile_count(tokens, kTokenTile), [&](std::int64_t task) {
    const std::int64_t row = task % row_tiles * row_tile, token = task / row_tiles * kTokenTile;
    const std::int64_t rows = std::min(row_tile, outputs - row),
                       count = std::min(kTokenTile, tokens - token);
    std::int32_t* const products = scratch.get();  // [count, rows]
    head_->dot(w + row * inputs, rows, inputs, x + token * inputs, count, products);
    const std::int32_t* product = products;
    for (std::int64_t t = token; t < token + count; ++t) {
      float* out = to + t * outputs + row;
      for (std::int64_t n = 0; n < rows; ++n) {
        out[n] = (token_scales[t] * scales[row + n]) * static_cast<float>(*product++);
      }
    }
  });
}

}  // namespace bitnet::cpu
