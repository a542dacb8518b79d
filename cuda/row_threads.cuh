// SPDX-License-Identifier: MIT
// The threads that work on one row: a warp for a narrow row, and then a block has several of them,
// else a block. Thread i has the quads i, i + threads, i + 2 threads, … of its row. How many threads
// there are, and with it the order of every sum, depends on the width alone.
#pragma once

#include "cuda/gpu.h"
#include "cuda/quads.cuh"
#include "cuda/reduce.cuh"

namespace bitnet::cuda {

inline constexpr int kMostRowThreads = 1024;
inline constexpr int kNarrowRows = 4;  // of a block, each with a warp of its own

struct RowGrid {
  // Each thread's quads, all held in registers; 0: any number, read again in each pass over the row.
  int quads;
  dim3 blocks, threads;
};

// Launch bounds of a kernel that holds `quads`, or none. Where none are held, no registers are
// spilled for the sake of a second block; 0 blocks: as the compiler likes.
constexpr int most_threads(int quads) { return quads == 2 ? kMostRowThreads / 2 : kMostRowThreads; }
constexpr int least_blocks(int quads) { return quads == 0 ? 1 : 0; }

// Host code. `rows`: of what a warp or block takes one after another only the first. Two quads for
// each of up to half the threads, then four. They are held where all are whole and aligned, and by
// no more than most_holders.
inline RowGrid row_grid(int rows, int width, bool aligned, int most_holders = kMostRowThreads) {
  const int quads_of_row = static_cast<int>(quads_in(width));
  const int quads = quads_of_row > kMostRowThreads ? 4 : 2;
  const int wanted = (quads_of_row + quads - 1) / quads;
  const int threads =
      min((wanted + gpu::kWarpSize - 1) / gpu::kWarpSize * gpu::kWarpSize, kMostRowThreads);
  const int rows_of_block = threads == gpu::kWarpSize ? kNarrowRows : 1;
  const bool held = aligned && threads <= most_holders && quads_of_row <= quads * threads;
  return {held ? quads : 0, dim3(static_cast<unsigned>((rows + rows_of_block - 1) / rows_of_block)),
          dim3(static_cast<unsigned>(threads), static_cast<unsigned>(rows_of_block))};
}

// May lie beyond the last row, for all lanes of a warp in a block that has no barriers.
BITNET_DEVICE int row_of_thread() {
  return static_cast<int>(blockIdx.x * blockDim.y + threadIdx.y);
}

// How many elements there are from a quad's first on, and whether whole quads are aligned. Rows
// count as aligned only if they are whole quads.
struct RowPart {
  int left;
  bool aligned;
  BITNET_DEVICE bool has(int i) const { return i < left; }
};

// body(q, at, part) for each quad of this thread, which begins at element `at`; q counts them where
// they are held in registers, else it is 0.
template <int kQuads, typename Body>
BITNET_DEVICE void for_each_quad(int width, bool aligned, Body body) {
  if constexpr (kQuads > 0) {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const int at = static_cast<int>(q * blockDim.x + threadIdx.x) * kQuad;
      if (at < width) body(q, at, RowPart{kQuad, true});
    }
  } else {
    for (int at = static_cast<int>(threadIdx.x) * kQuad; at < width;
         at += static_cast<int>(blockDim.x) * kQuad) {
      body(0, at, RowPart{width - at, aligned});
    }
  }
}

namespace detail {

// Folds one value of each warp of the row in ascending order; every thread gets the result. All
// threads of the block call it. Two calls one after the other have different slots (0 and 1), so
// that one barrier a call is enough.
template <typename T, typename Fold>
BITNET_DEVICE T fold_warps_of_row(T value, int slot, Fold fold) {
  constexpr int kMostWarps = kMostRowThreads / gpu::kWarpSize;
  BITNET_SHARED_ARRAY(T, of_warp, 2 * kMostWarps);
  if (blockDim.x == gpu::kWarpSize) return value;
  T* const values = of_warp + slot * kMostWarps;
  if (threadIdx.x % gpu::kWarpSize == 0) values[threadIdx.x / gpu::kWarpSize] = value;
  __syncthreads();
  T result = values[0];
  const int warps = static_cast<int>(blockDim.x) / gpu::kWarpSize;
  for (int warp = 1; warp < warps; ++warp) result = fold(result, values[warp]);
  return result;
}

}  // namespace detail

BITNET_DEVICE float row_sum(float value, int slot) {
  return detail::fold_warps_of_row(warp_sum(value), slot, [](float a, float b) { return a + b; });
}
// Two sums at the cost of one.
BITNET_DEVICE float2 row_sums(float2 value, int slot) {
  return detail::fold_warps_of_row(
      make_float2(warp_sum(value.x), warp_sum(value.y)), slot,
      [](float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); });
}
// Of the bits of magnitudes: they order as the numbers do, infinity and NaN on top.
BITNET_DEVICE unsigned row_max(unsigned value, int slot) {
  return detail::fold_warps_of_row(__reduce_max_sync(gpu::kWholeWarp, value), slot,
                                   [](unsigned a, unsigned b) { return max(a, b); });
}

}  // namespace bitnet::cuda
