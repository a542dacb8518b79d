// SPDX-License-Identifier: MIT
// Products of attention on tensor cores, for a warp that owns 16 rows: scores against the rows of a
// tile in shared memory, and weights times the rows of a tile. Tiles hold rows of kDim bf16.
#pragma once

#include "cuda/gpu.h"
#include "cuda/reals.h"

namespace bitnet::cuda {

inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// 16 rows x kColumns of fp32 sums; fragment j, element i of a lane: row lane / 4 + i / 2 * 8,
// column 8 j + lane % 4 * 2 + i % 2.
template <int kColumns>
using Sums = float[kColumns / 8][4];
// The same rounded to bf16, as the left operand of further products.
template <int kColumns>
using Weights = std::uint32_t[kColumns / 16][4];

// Where a 16-byte chunk of a row lies, in elements. Chunks are exchanged by the row, so that the
// eight rows that one ldmatrix reads lie in different banks: of 8 chunks where a row fills all banks
// a whole number of times, else (32, 96 elements) of 4 for each two rows.
template <int kDim>
BITNET_DEVICE unsigned exchange(unsigned row) {
  static_assert(kDim % 32 == 0);
  return kDim % 64 == 0 ? row % 8 : row / 2 % 4;
}
template <int kDim>
BITNET_DEVICE unsigned tile_offset(unsigned row, unsigned chunk) {
  return row * kDim + (chunk ^ exchange<kDim>(row)) * 8;
}

// Starts copying rows [first, first + kRows) into a tile, zeros from `end` on. All threads call.
template <int kDim, int kRows, int kThreads>
BITNET_DEVICE void copy_rows(__nv_bfloat16* tile, const __nv_bfloat16* rows, int first, int end) {
  constexpr unsigned kChunks = kDim / 8;
  static_assert(kRows * kChunks % kThreads == 0);
  const __nv_bfloat16* const from = rows + static_cast<std::size_t>(first) * kDim + threadIdx.x * 8;
  const int left = end - first;
#pragma unroll
  for (unsigned i = 0; i < kRows * kChunks / kThreads; ++i) {
    // Where rows are shared out evenly, all of a thread's copies have one chunk and rows at a fixed
    // distance: the addresses differ by constants.
    constexpr bool kEven = kThreads % kChunks == 0;
    const unsigned part = threadIdx.x + (kEven ? 0 : i * kThreads);
    const unsigned row = part / kChunks + (kEven ? i * (kThreads / kChunks) : 0);
    gpu::copy_async16(tile + tile_offset<kDim>(row, part % kChunks), from + i * (kThreads * 8),
                      static_cast<int>(row) < left);
  }
}

// The row of a tile that a lane gives to ldmatrix: row `line` of 16 and chunk `side` of 2, relative
// to rows (a multiple of 8) and chunks (of 2) that are known when the kernel is compiled.
template <int kDim>
struct LaneRow {
  const __nv_bfloat16* row;
  unsigned turn;
  BITNET_DEVICE LaneRow(const __nv_bfloat16* tile, unsigned line, unsigned side)
      : row(tile + line * kDim), turn((exchange<kDim>(line) ^ side) * 8) {}
  BITNET_DEVICE const __nv_bfloat16* at(unsigned rows, unsigned chunk) const {
    constexpr unsigned kTurned = kDim % 64 == 0 ? 7 : 3;
    return row + (chunk % (kTurned + 1) * 8 ^ turn) + rows * kDim + (chunk & ~kTurned) * 8;
  }
};

// sums = (the 16 rows of a) · (rows 0 .. kColumns - 1 of tile b)ᵀ
template <int kDim, int kColumns>
BITNET_DEVICE void multiply_rows(const __nv_bfloat16* a, const __nv_bfloat16* b,
                                 Sums<kColumns>& sums) {
  const unsigned lane = threadIdx.x % gpu::kWarpSize;
  const LaneRow<kDim> a_row(a, lane % 16, lane / 16);
  const LaneRow<kDim> b_row(b, lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[j][i] = 0.0f;
  }
#pragma unroll
  for (int chunk = 0; chunk < kDim / 8; chunk += 2) {
    std::uint32_t left[4];  // rows 0-7, 8-15 of the first chunk, then of the second
    gpu::ldmatrix_x4(left, a_row.at(0, chunk));
#pragma unroll
    for (int j = 0; j < kColumns / 8; j += 2) {  // both chunks of rows 0-7, then of rows 8-15
      std::uint32_t pair[4];
      gpu::ldmatrix_x4(pair, b_row.at(j * 8, chunk));
      const std::uint32_t low[2] = {pair[0], pair[1]}, high[2] = {pair[2], pair[3]};
      gpu::mma_m16n8k16_bf16(sums[j], left, low);
      gpu::mma_m16n8k16_bf16(sums[j + 1], left, high);
    }
  }
}

// The accumulators of two neighbouring fragments lie as the left operand wants its 16 columns.
template <int kColumns>
BITNET_DEVICE void round_weights(const Sums<kColumns>& sums, Weights<kColumns>& weights) {
#pragma unroll
  for (int j = 0; j < kColumns / 16; ++j) {
    weights[j][0] = gpu::pack_bf16x2(sums[2 * j][0], sums[2 * j][1]);
    weights[j][1] = gpu::pack_bf16x2(sums[2 * j][2], sums[2 * j][3]);
    weights[j][2] = gpu::pack_bf16x2(sums[2 * j + 1][0], sums[2 * j + 1][1]);
    weights[j][3] = gpu::pack_bf16x2(sums[2 * j + 1][2], sums[2 * j + 1][3]);
  }
}

// sums += weights · (kColumns elements of rows 0 .. kRows - 1 of the tile)
template <int kDim, int kRows, int kColumns>
BITNET_DEVICE void add_weighted_rows(const Weights<kRows>& weights, const __nv_bfloat16* tile,
                                     Sums<kColumns>& sums) {
  const unsigned lane = threadIdx.x % gpu::kWarpSize;
  const LaneRow<kDim> tile_row(tile, lane % 16, lane / 16);
#pragma unroll
  for (int row = 0; row < kRows; row += 16) {
#pragma unroll
    for (int j = 0; j < kColumns / 8; j += 2) {  // rows 0-7, 8-15 of one chunk, then of the next
      std::uint32_t pair[4];
      gpu::ldmatrix_x4_trans(pair, tile_row.at(row, j));
      const std::uint32_t low[2] = {pair[0], pair[1]}, high[2] = {pair[2], pair[3]};
      gpu::mma_m16n8k16_bf16(sums[j], weights[row / 16], low);
      gpu::mma_m16n8k16_bf16(sums[j + 1], weights[row / 16], high);
    }
  }
}

BITNET_DEVICE void store_two(float* to, float a, float b) {
  gpu::store_vector(to, make_float2(a, b));
}
BITNET_DEVICE void store_two(__nv_bfloat16* to, float a, float b) {
  gpu::store_vector(to, gpu::pack_bf16x2(a, b));
}

// Writes factor[half] * sums of the warp's rows, [rows, heads, E] in memory: row r at to + r *
// stride, the columns below E from first_column on; only rows below `end`.
template <int kColumns, typename T>
BITNET_DEVICE void store_rows(const Sums<kColumns>& sums, const float (&factor)[2], T* to,
                              std::size_t stride, int first_row, int end, int first_column,
                              int head_dim) {
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + half * 8 + lane / 4;
    if (row >= end) continue;
    const int first = first_column + lane % 4 * 2;
    T* const of_row = to + row * stride + first;
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
      if (first + j * 8 >= head_dim) continue;
      store_two(of_row + j * 8, factor[half] * sums[j][half * 2],
                factor[half] * sums[j][half * 2 + 1]);
    }
  }
}
// Row 0 at element `at` of `to`.
template <int kColumns>
BITNET_DEVICE void store_rows(const Sums<kColumns>& sums, const float (&factor)[2], const Reals& to,
                              std::size_t at, std::size_t stride, int first_row, int end,
                              int first_column, int head_dim) {
  if (to.bf16) {
    store_rows<kColumns>(sums, factor, static_cast<__nv_bfloat16*>(to.data) + at, stride, first_row,
                         end, first_column, head_dim);
  } else {
    store_rows<kColumns>(sums, factor, static_cast<float*>(to.data) + at, stride, first_row, end,
                         first_column, head_dim);
  }
}

}  // namespace bitnet::cuda
