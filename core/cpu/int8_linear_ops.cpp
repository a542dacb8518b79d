// SPDX-License-Identifier: MIT
// The output head in int8.
#include <algorithm>

#include "core/backend/linear_checks.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/head_kernels.h"
#include "core/cpu/read_ahead.h"

namespace bitnet::cpu {
namespace {

// Weights of a tile: few enough for the second-level cache, where many tokens find them again, and
// enough for one token to hide the hand-out of tasks.
constexpr std::int64_t kTileBytes = 1 << 18;
constexpr std::int64_t kTokenTile = 64;

}  // namespace

void CpuBackend::int8_linear(ConstTensorView codes, ConstTensorView act_scale,
                             ConstTensorView weights, ConstTensorView row_scale, TensorView y) {
  check_int8_linear(codes, act_scale, weights, row_scale, y);
  const std::int64_t tokens = codes.dim(0), inputs = codes.dim(1), outputs = weights.dim(0);
  const std::int8_t *x = codes.as<std::int8_t>().data(), *w = weights.as<std::int8_t>().data();
  const float *token_scales = act_scale.as<float>().data(), *scales = row_scale.as<float>().data();
  float* to = y.as<float>().data();
  const std::int64_t row_tile = tile_count(outputs, tile_count(outputs * inputs, kTileBytes));
  const std::int64_t row_tiles = tile_count(outputs, row_tile);
  const ThreadScratch<std::int32_t> scratch(thread_scratch_, team_,
                                            row_tile * std::min(kTokenTile, tokens));
  const std::int64_t tasks = row_tiles * tile_count(tokens, kTokenTile);
  if (read_ahead_ != nullptr) {
    read_ahead_->start_product([&](int thread) -> ReadAhead::Stretch {
      const std::int64_t row = team_.first_task(tasks, thread) % row_tiles * row_tile;
      return {w + row * inputs, (outputs - row) * inputs};
    });
  }
  team_.run(tasks, [&](std::int64_t task) {
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
