// SPDX-License-Identifier: MIT
// The output head in int8.
#include <algorithm>
#include <cstdint>

#include "core/backend/linear_checks.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/head_kernels.h"
#include "core/cpu/past_caches.h"
#include "core/cpu/read_ahead.h"
#include "core/cpu/stretches.h"

namespace bitnet::cpu {
namespace {

// Weights of a tile: few enough for the second-level cache, where many tokens find them again, and
// enough for one token to hide the hand-out of tasks.
constexpr std::int64_t kTileBytes = 1 << 18;
constexpr std::int64_t kTokenTile = 64;
// The weights from which on sums go past the caches: more than a second-level cache holds.
constexpr std::int64_t kPastCachesBytes = 1 << 22;

}  // namespace

void CpuBackend::int8_linear(ConstTensorView codes, ConstTensorView act_scale,
                             ConstTensorView weights, ConstTensorView row_scale, TensorView y) {
  check_int8_linear(codes, act_scale, weights, row_scale, y);
  const std::int64_t tokens = codes.dim(0), inputs = codes.dim(1), outputs = weights.dim(0);
  const std::int8_t *x = codes.as<std::int8_t>().data(), *w = weights.as<std::int8_t>().data();
  const float *token_scales = act_scale.as<float>().data(), *scales = row_scale.as<float>().data();
  float* to = y.as<float>().data();
  // Whole lines of sums.
  const std::int64_t row_tile =
      tile_count(tile_count(outputs, tile_count(outputs * inputs, kTileBytes)), kLineSums) *
      kLineSums;
  const std::int64_t row_tiles = tile_count(outputs, row_tile);
  const ThreadScratch<std::int32_t> scratch(thread_scratch_, team_,
                                            row_tile * std::min(kTokenTile, tokens));
  // One token's sums are scaled when all the weights have been read.
  std::int32_t* const sums = tokens == 1 && outputs * inputs >= kPastCachesBytes
                                 ? reduction_scratch_.get<std::int32_t>(outputs)
                                 : nullptr;
  const auto scale = [&](const std::int32_t* from, std::int64_t token, std::int64_t row,
                         std::int64_t rows) {
    float* out = to + token * outputs + row;
    for (std::int64_t n = 0; n < rows; ++n) {
      out[n] = (token_scales[token] * scales[row + n]) * static_cast<float>(from[n]);
    }
  };
  const std::int64_t tasks = row_tiles * tile_count(tokens, kTokenTile);
  if (read_ahead_ != nullptr) {
    read_ahead_->start_product([&](int thread) -> ReadAhead::Stretch {
      const std::int64_t row = team_.first_task(tasks, thread) % row_tiles * row_tile;
      return {w + row * inputs, (outputs - row) * inputs};
    });
  }
  team_.run(
      tasks,
      [&](std::int64_t task) {
        const std::int64_t row = task % row_tiles * row_tile, token = task / row_tiles * kTokenTile;
        const std::int64_t rows = std::min(row_tile, outputs - row),
                           count = std::min(kTokenTile, tokens - token);
        std::int32_t* const products = scratch.get();  // [count, rows]
        head_->dot(w + row * inputs, rows, inputs, x + token * inputs, count, products);
        if (sums != nullptr) return copy_past_caches(products, rows, sums + row);
        for (std::int64_t t = 0; t < count; ++t) scale(products + t * rows, token + t, row, rows);
      },
      sums != nullptr ? Stores::past_caches : Stores::in_caches);
  if (sums == nullptr) return;
  run_stretches(team_, outputs, kStretch, [&](std::int64_t first, std::int64_t count) {
    scale(sums + first, 0, first, count);
  });
}

}  // namespace bitnet::cpu
