// SPDX-License-Identifier: MIT
// What the operations around a norm share: arguments, the sum of the gain's gradient.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/backend/row_checks.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/stretches.h"

namespace bitnet::cpu {

constexpr std::int64_t kGainTile = 64;  // rows whose part of dgain is summed together

inline RowNorm row_norm(NormKind kind, ConstTensorView gain, float eps) {
  return {kind == NormKind::layer, gain.as<float>().data(), eps};
}

// Calls body(row, count, part) in parallel for tiles of kGainTile rows and adds the parts [n],
// which start as zero, to dgain in ascending order. Without dgain the parts are null, and the tasks
// as large as memory likes them.
template <typename Body>
void run_gain_tiles(const ThreadTeam& team, const FloatKernels& kernels, Scratch& scratch,
                    std::int64_t rows, std::int64_t n, TensorView dgain, const Body& body) {
  const std::int64_t tiles = tile_count(rows, kGainTile);
  float* const parts = dgain ? scratch.get<float>(tiles * n) : nullptr;  // [tiles, n]
  if (parts == nullptr) {
    run_stretches(team, rows, rows_per_stretch(n),
                  [&](std::int64_t row, std::int64_t count) { body(row, count, nullptr); });
    return;
  }
  run_stretches(team, rows, kGainTile, [&](std::int64_t row, std::int64_t count) {
    float* const part = parts + row / kGainTile * n;
    std::fill_n(part, n, 0.0f);
    body(row, count, part);
  });
  float* const sums = dgain.as<float>().data();
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    kernels.add(sums, parts + tile * n, sums, n);
  }
}

}  // namespace bitnet::cpu
