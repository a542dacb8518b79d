// SPDX-License-Identifier: MIT
// Products y[m, n] = sum over k of a[m, k] * b[n, k] on tensor cores. A block computes one tile of
// y; its warps share the tile's operands, which pass through a ring of shared-memory stages filled
// by cp.async while earlier stages are multiplied. Depths count bytes of k: the same for every type
// of element. An output is summed over k in ascending slices, whatever the tile and the matrix
// around it: a row's result depends on that row alone.
#pragma once

#include "cuda/gpu.h"

namespace bitnet::cuda {

inline constexpr int kStageDepth = 64;  // bytes of k in a stage
inline constexpr int kChunkBytes = 16;  // of one cp.async, and of one row of an ldmatrix
inline constexpr int kSliceDepth = 32;  // bytes of k in one mma
inline constexpr int kStageChunks = kStageDepth / kChunkBytes;

template <int kTileRows, int kTileColumns, int kWarpTileRows, int kWarpTileColumns, int kRing>
struct GemmTile {
  static constexpr int kRows = kTileRows, kColumns = kTileColumns;
  static constexpr int kWarpRows = kWarpTileRows, kWarpColumns = kWarpTileColumns;
  static constexpr int kStages = kRing;
  static constexpr int kWarpsAcross = kColumns / kWarpColumns;
  static constexpr int kThreads = kRows / kWarpRows * kWarpsAcross * gpu::kWarpSize;
  static constexpr int kLines = kRows + kColumns;  // of a stage: rows of a, then of b
  static constexpr int kStageBytes = kLines * kStageDepth;
  static constexpr int kSharedBytes = kStages * kStageBytes;  // at most the 48 KB of every device
  static constexpr int kCopies = kLines * kStageChunks / kThreads;  // per thread and stage
  static constexpr int kRowFragments = kWarpRows / 16, kColumnFragments = kWarpColumns / 8;
  static_assert(kLines * kStageChunks % kThreads == 0 && kColumnFragments % 2 == 0);
  static_assert(kSharedBytes <= 48 << 10);
};
using LargeGemmTile = GemmTile<128, 128, 64, 32, 3>;
using SmallGemmTile = GemmTile<64, 64, 32, 32, 3>;
using FewRowsGemmTile = GemmTile<16, 16, 16, 16, 8>;  // a warp with much of b under way

// Lines contiguous along k, all of them aligned to 16 bytes and `depth` bytes long.
struct GemmOperand {
  const void* lines;
  int count;
};

// The sums of a warp: fragment (i, j) has the layout of the mma's accumulator.
template <typename Tile, typename Sum>
using GemmSums = Sum[Tile::kRowFragments][Tile::kColumnFragments][4];

// Where chunk c of a stage's line lies. Two lines fill the 32 banks; exchanging chunks by (line /
// 2) sends the eight lines that one ldmatrix reads to different banks.
BITNET_DEVICE int stage_offset(int line, int chunk) {
  return line * kStageDepth + ((chunk ^ (line / 2)) % kStageChunks) * kChunkBytes;
}

// The thread's share of copying a stage: the same lines and chunks every time.
template <typename Tile>
struct StageCopier {
  const unsigned char* source[Tile::kCopies];
  int target[Tile::kCopies];
  int limit[Tile::kCopies];  // of k, from where on the chunk is zeros: 0 outside the matrix

  BITNET_DEVICE StageCopier(const GemmOperand& a, const GemmOperand& b, int depth, int first_row,
                            int first_column) {
#pragma unroll
    for (int i = 0; i < Tile::kCopies; ++i) {
      const int part = static_cast<int>(threadIdx.x) + i * Tile::kThreads;
      const int line = part / kStageChunks, chunk = part % kStageChunks;
      const bool of_a = line < Tile::kRows;
      const int index = of_a ? first_row + line : first_column + line - Tile::kRows;
      const bool inside = index < (of_a ? a.count : b.count);
      const auto* lines = static_cast<const unsigned char*>(of_a ? a.lines : b.lines);
      source[i] =
          lines + static_cast<std::size_t>(inside ? index : 0) * depth + chunk * kChunkBytes;
      limit[i] = inside ? depth - chunk * kChunkBytes : 0;
      target[i] = stage_offset(line, chunk);
    }
  }
  BITNET_DEVICE void start(unsigned char* stage, int from) const {
#pragma unroll
    for (int i = 0; i < Tile::kCopies; ++i) {
      gpu::copy_async16(stage + target[i], source[i] + from, from < limit[i]);
    }
  }
};

BITNET_DEVICE void multiply_fragments(int (&sums)[4], const std::uint32_t (&a)[4],
                                      const std::uint32_t (&b)[2]) {
  gpu::mma_m16n8k32_s8(sums, a, b);
}
BITNET_DEVICE void multiply_fragments(float (&sums)[4], const std::uint32_t (&a)[4],
                                      const std::uint32_t (&b)[2]) {
  gpu::mma_m16n8k16_bf16(sums, a, b);
}

// The warp's place in the tile.
template <typename Tile>
struct WarpPlace {
  int lane, row, column;
  BITNET_DEVICE WarpPlace() {
    const int warp = static_cast<int>(threadIdx.x) / gpu::kWarpSize;
    lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
    row = warp / Tile::kWarpsAcross * Tile::kWarpRows;
    column = warp % Tile::kWarpsAcross * Tile::kWarpColumns;
  }
};

// The warp's part of one stage.
template <typename Tile, typename Sum>
BITNET_DEVICE void multiply_stage(const unsigned char* stage, const WarpPlace<Tile>& warp,
                                  GemmSums<Tile, Sum>& sums) {
#pragma unroll
  for (int slice = 0; slice < kStageDepth; slice += kSliceDepth) {
    const int first_chunk = slice / kChunkBytes;
    std::uint32_t a[Tile::kRowFragments][4], b[Tile::kColumnFragments][2];
#pragma unroll
    for (int i = 0; i < Tile::kRowFragments; ++i) {  // rows 0-7, 8-15 of chunk 0, then of chunk 1
      const int line = warp.row + i * 16 + warp.lane % 16;
      gpu::ldmatrix_x4(a[i], stage + stage_offset(line, first_chunk + warp.lane / 16));
    }
#pragma unroll
    for (int j = 0; j < Tile::kColumnFragments; j += 2) {  // chunks 0, 1 of columns 0-7, then 8-15
      const int line = Tile::kRows + warp.column + j * 8 + warp.lane % 8 + warp.lane / 16 * 8;
      std::uint32_t pair[4];
      gpu::ldmatrix_x4(pair, stage + stage_offset(line, first_chunk + warp.lane / 8 % 2));
      b[j][0] = pair[0];
      b[j][1] = pair[1];
      b[j + 1][0] = pair[2];
      b[j + 1][1] = pair[3];
    }
#pragma unroll
    for (int i = 0; i < Tile::kRowFragments; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kColumnFragments; ++j) multiply_fragments(sums[i][j], a[i], b[j]);
    }
  }
}

struct NothingBefore {
  BITNET_DEVICE void operator()(int) const {}
};

// The block's tile at (first_row, first_column); all threads call. `stages` is shared memory of
// Tile::kSharedBytes, `depth` a multiple of 16. before(step) is called before a stage is multiplied.
template <typename Tile, typename Sum, typename Before = NothingBefore>
BITNET_DEVICE void multiply_tile(const GemmOperand& a, const GemmOperand& b, int depth,
                                 int first_row, int first_column, unsigned char* stages,
                                 GemmSums<Tile, Sum>& sums, Before before = {}) {
  const StageCopier<Tile> copier(a, b, depth, first_row, first_column);
  const WarpPlace<Tile> warp;
  const int steps = (depth + kStageDepth - 1) / kStageDepth;
#pragma unroll
  for (int s = 0; s < Tile::kStages - 1; ++s) {
    if (s < steps) copier.start(stages + s * Tile::kStageBytes, s * kStageDepth);
    gpu::commit_copies();  // also an empty group, so that the waits below count the same
  }
  for (int step = 0; step < steps; ++step) {
    gpu::wait_copies<Tile::kStages - 2>();
    __syncthreads();  // the stage is complete, and everybody has left the one that is filled next
    const int next = step + Tile::kStages - 1;
    if (next < steps) {
      copier.start(stages + next % Tile::kStages * Tile::kStageBytes, next * kStageDepth);
    }
    gpu::commit_copies();
    before(step);
    multiply_stage<Tile, Sum>(stages + step % Tile::kStages * Tile::kStageBytes, warp, sums);
  }
}

// Calls use(row, column, sum of column, sum of column + 1) for the thread's sums of a tile whose row
// and column are inside the matrix; column is even, and the next one may be outside. The sums are
// references.
template <typename Tile, typename Sum, typename Use>
BITNET_DEVICE void for_each_pair(GemmSums<Tile, Sum>& sums, int first_row, int first_column,
                                 int rows, int columns, Use use) {
  const WarpPlace<Tile> warp;
#pragma unroll
  for (int i = 0; i < Tile::kRowFragments; ++i) {
#pragma unroll
    for (int eight = 0; eight < 2; ++eight) {
      const int row = first_row + warp.row + i * 16 + eight * 8 + warp.lane / 4;
      if (row >= rows) continue;
#pragma unroll
      for (int j = 0; j < Tile::kColumnFragments; ++j) {
        const int column = first_column + warp.column + j * 8 + warp.lane % 4 * 2;
        if (column >= columns) continue;
        use(row, column, sums[i][j][eight * 2], sums[i][j][eight * 2 + 1]);
      }
    }
  }
}

}  // namespace bitnet::cuda
