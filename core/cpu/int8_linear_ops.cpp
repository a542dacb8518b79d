// SPDX-License-Identifier: MIT
// The output head in int8.
#include <algorithm>
#include <cstdint>

#include "core/backend/linear_checks.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/head_kernels.h"

namespace bitnet::cpu {
namespace {

// Weights of a tile: few enough for the second-level cache, where many tokens find them again.
constexpr std::int64_t kTileBytes = 1 << 18;
constexpr std::int64_t kLineFloats = 16;
constexpr std::int64_t kTokenTile = 64;
// Tiles whose outputs one token stores together: each time costs as much as 8 KB of weights.
constexpr std::int64_t kJoinedTiles = 8;

}  // namespace

void CpuBackend::int8_linear(ConstTensorView codes, ConstTensorView act_scale,
                             ConstTensorView weights, ConstTensorView row_scale, TensorView y) {
  check_int8_linear(codes, act_scale, weights, row_scale, y);
  const std::int64_t tokens = codes.dim(0), inputs = codes.dim(1), outputs = weights.dim(0);
  const std::int8_t *x = codes.as<std::int8_t>().data(), *w = weights.as<std::int8_t>().data();
  const float *token_scales = act_scale.as<float>().data(), *scales = row_scale.as<float>().data();
  float* to = y.as<float>().data();
  // Whole lines of outputs.
  const std::int64_t row_tile =
      tile_count(tile_count(outputs, tile_count(outputs * inputs, kTileBytes)), kLineFloats) *
      kLineFloats;
  const std::int64_t row_tiles = tile_count(outputs, row_tile);
  const std::int64_t joined = tokens == 1 ? std::min(kJoinedTiles, row_tiles) : 1;
  const std::int64_t tasks = row_tiles * tile_count(tokens, kTokenTile);
  issue([=, this](std::int64_t) {
    if (record_ != nullptr) {
      record_->read_ahead().start_product(outputs * inputs, [&](int thread) -> ReadAhead::Stretch {
        const std::int64_t row = issued_team_.first_task(tasks, thread) % row_tiles * row_tile;
        return {w + row * inputs, (outputs - row) * inputs};
      });
    }
    const std::int64_t ahead = stream_ahead();
    const ThreadScratch<std::int32_t> scratch(
        thread_scratch_, issued_team_, row_tile * std::max(joined, std::min(kTokenTile, tokens)));
    const auto scale = [&](const std::int32_t* from, std::int64_t token, std::int64_t row,
                           std::int64_t rows) {
      float* out = to + token * outputs + row;
      for (std::int64_t n = 0; n < rows; ++n) {
        out[n] = (token_scales[token] * scales[row + n]) * static_cast<float>(from[n]);
      }
    };
    issued_team_.run_ranges(tasks, [&](std::int64_t first, std::int64_t end) {
      std::int32_t* const products = scratch.get();  // [count, rows]
      for (std::int64_t task = first; task < end; task += joined) {
        const std::int64_t row = task % row_tiles * row_tile, token = task / row_tiles * kTokenTile;
        const std::int64_t rows = std::min(row_tile * std::min(joined, end - task), outputs - row),
                           count = std::min(kTokenTile, tokens - token);
        head_->dot(w + row * inputs, rows, inputs, x + token * inputs, count, ahead, products);
        for (std::int64_t t = 0; t < count; ++t) scale(products + t * rows, token + t, row, rows);
      }
    });
  });
}

}  // namespace bitnet::cpu
