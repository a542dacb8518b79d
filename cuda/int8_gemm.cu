// SPDX-License-Identifier: MIT
// A block computes one tile of y; its warps share the tile's operands, which pass through a ring of
// shared-memory stages filled by cp.async while earlier stages are multiplied.
#include "cuda/int8_gemm.h"

#include "cuda/gpu.h"

namespace bitnet::cuda {
namespace {

constexpr int kDepth = 64;  // bytes of K in a stage
constexpr int kChunk = 16;  // bytes of one cp.async, and of one row of an ldmatrix
constexpr int kSlice = 32;  // bytes of K in one mma
constexpr int kChunks = kDepth / kChunk;

template <int kTileRows, int kTileColumns, int kWarpTileRows, int kWarpTileColumns, int kRing>
struct Tile {
  static constexpr int kRows = kTileRows, kColumns = kTileColumns;
  static constexpr int kWarpRows = kWarpTileRows, kWarpColumns = kWarpTileColumns;
  static constexpr int kStages = kRing;
  static constexpr int kWarpsAcross = kColumns / kWarpColumns;
  static constexpr int kThreads = kRows / kWarpRows * kWarpsAcross * gpu::kWarpSize;
  static constexpr int kLines = kRows + kColumns;  // of a stage: rows of codes, then of weights
  static constexpr int kStageBytes = kLines * kDepth;
  static constexpr int kSharedBytes = kStages * kStageBytes;   // at most the 48 KB of every device
  static constexpr int kCopies = kLines * kChunks / kThreads;  // per thread and stage
  static constexpr int kRowFragments = kWarpRows / 16, kColumnFragments = kWarpColumns / 8;
  static_assert(kLines * kChunks % kThreads == 0 && kColumnFragments % 2 == 0);
  static_assert(kSharedBytes <= 48 << 10);
};
using LargeTile = Tile<128, 128, 64, 32, 3>;
using SmallTile = Tile<64, 64, 32, 32, 3>;

// Where chunk c of a stage's line lies. Two lines fill the 32 banks; exchanging chunks by (line /
// 2) sends the eight lines that one ldmatrix reads to different banks.
BITNET_DEVICE int chunk_offset(int line, int chunk) {
  return line * kDepth + ((chunk ^ (line / 2)) % kChunks) * kChunk;
}

// The thread's share of copying a stage: the same lines and chunks every time.
template <typename Tile, typename Output>
struct StageCopier {
  const std::int8_t* source[Tile::kCopies];
  int target[Tile::kCopies];
  int limit[Tile::kCopies];  // of K, from where on the chunk is zeros: 0 outside the matrix

  BITNET_DEVICE StageCopier(const Int8Gemm<Output>& p, int first_row, int first_column) {
#pragma unroll
    for (int i = 0; i < Tile::kCopies; ++i) {
      const int part = static_cast<int>(threadIdx.x) + i * Tile::kThreads;
      const int line = part / kChunks, chunk = part % kChunks;
      const bool is_codes = line < Tile::kRows;
      const int index = is_codes ? first_row + line : first_column + line - Tile::kRows;
      const bool inside = index < (is_codes ? p.rows : p.columns);
      const std::int8_t* matrix = is_codes ? p.codes : p.weights;
      source[i] = matrix + static_cast<std::size_t>(inside ? index : 0) * p.depth + chunk * kChunk;
      limit[i] = inside ? p.depth - chunk * kChunk : 0;
      target[i] = chunk_offset(line, chunk);
    }
  }
  BITNET_DEVICE void start(std::int8_t* stage, int from) const {
#pragma unroll
    for (int i = 0; i < Tile::kCopies; ++i) {
      gpu::copy_async16(stage + target[i], source[i] + from, from < limit[i]);
    }
  }
};

// The warp's part of one stage.
template <typename Tile>
BITNET_DEVICE void multiply_stage(const std::int8_t* stage, int warp_row, int warp_column,
                                  int (&sums)[Tile::kRowFragments][Tile::kColumnFragments][4]) {
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
#pragma unroll
  for (int slice = 0; slice < kDepth; slice += kSlice) {
    const int first_chunk = slice / kChunk;
    std::uint32_t codes[Tile::kRowFragments][4], weights[Tile::kColumnFragments][2];
#pragma unroll
    for (int i = 0; i < Tile::kRowFragments; ++i) {  // rows 0-7, 8-15 of chunk 0, then of chunk 1
      const int line = warp_row + i * 16 + lane % 16;
      gpu::ldmatrix_x4(codes[i], stage + chunk_offset(line, first_chunk + lane / 16));
    }
#pragma unroll
    for (int j = 0; j < Tile::kColumnFragments; j += 2) {  // chunks 0, 1 of columns 0-7, then 8-15
      const int line = Tile::kRows + warp_column + j * 8 + lane % 8 + lane / 16 * 8;
      std::uint32_t pair[4];
      gpu::ldmatrix_x4(pair, stage + chunk_offset(line, first_chunk + lane / 8 % 2));
      weights[j][0] = pair[0];
      weights[j][1] = pair[1];
      weights[j + 1][0] = pair[2];
      weights[j + 1][1] = pair[3];
    }
#pragma unroll
    for (int i = 0; i < Tile::kRowFragments; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kColumnFragments; ++j) {
        gpu::mma_m16n8k32_s8(sums[i][j], codes[i], weights[j]);
      }
    }
  }
}

BITNET_DEVICE void store_pair(float* to, float a, float b) {
  gpu::store_vector(to, make_float2(a, b));
}
BITNET_DEVICE void store_pair(__nv_bfloat16* to, float a, float b) {
  gpu::store_vector(to, gpu::pack_bf16x2(a, b));
}

// One block per tile of y; x: columns, y: rows.
template <typename Tile, typename Output>
__global__ void __launch_bounds__(Tile::kThreads) int8_gemm_kernel(Int8Gemm<Output> p) {
  BITNET_DYNAMIC_SHARED(std::int8_t, stages);  // [kStages, kLines, kDepth]
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_column = static_cast<int>(blockIdx.x) * Tile::kColumns;
  const int warp = static_cast<int>(threadIdx.x) / gpu::kWarpSize;
  const int warp_row = warp / Tile::kWarpsAcross * Tile::kWarpRows;
  const int warp_column = warp % Tile::kWarpsAcross * Tile::kWarpColumns;
  const StageCopier<Tile, Output> copier(p, first_row, first_column);
  const int steps = (p.depth + kDepth - 1) / kDepth;

#pragma unroll
  for (int s = 0; s < Tile::kStages - 1; ++s) {
    if (s < steps) copier.start(stages + s * Tile::kStageBytes, s * kDepth);
    gpu::commit_copies();  // also an empty group, so that the waits below count the same
  }
  int sums[Tile::kRowFragments][Tile::kColumnFragments][4] = {};
  for (int step = 0; step < steps; ++step) {
    gpu::wait_copies<Tile::kStages - 2>();
    __syncthreads();  // the stage is complete, and everybody has left the one that is filled next
    const int next = step + Tile::kStages - 1;
    if (next < steps) {
      copier.start(stages + next % Tile::kStages * Tile::kStageBytes, next * kDepth);
    }
    gpu::commit_copies();
    multiply_stage<Tile>(stages + step % Tile::kStages * Tile::kStageBytes, warp_row, warp_column,
                         sums);
  }

  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const float weight_scale = *p.weight_scale;
#pragma unroll
  for (int i = 0; i < Tile::kRowFragments; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + warp_row + i * 16 + half * 8 + lane / 4;
      if (row >= p.rows) continue;
      const float scale = p.act_scale[row] * weight_scale;
#pragma unroll
      for (int j = 0; j < Tile::kColumnFragments; ++j) {
        const int column = first_column + warp_column + j * 8 + lane % 4 * 2;
        if (column >= p.columns) continue;  // columns is even: so is the next one inside
        store_pair(p.y + static_cast<std::size_t>(row) * p.columns + column,
                   scale * static_cast<float>(sums[i][j][half * 2]),
                   scale * static_cast<float>(sums[i][j][half * 2 + 1]));
      }
    }
  }
}

template <typename Tile, typename Output>
cudaError_t launch_tile(const Int8Gemm<Output>& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((p.columns + Tile::kColumns - 1) / Tile::kColumns),
                  static_cast<unsigned>((p.rows + Tile::kRows - 1) / Tile::kRows));
  return gpu::launch(int8_gemm_kernel<Tile, Output>, grid, dim3(Tile::kThreads), Tile::kSharedBytes,
                     stream, p);
}

}  // namespace

template <typename Output>
cudaError_t int8_gemm(const Int8Gemm<Output>& p, Int8GemmTile tile, cudaStream_t stream) {
  if (p.rows < 1 || p.columns < 4 || p.columns % 4 != 0 || p.depth < kChunk ||
      p.depth % kChunk != 0 || p.depth >= 1 << 24) {
    return cudaErrorInvalidValue;
  }
  return tile == Int8GemmTile::large ? launch_tile<LargeTile>(p, stream)
                                     : launch_tile<SmallTile>(p, stream);
}

template cudaError_t int8_gemm(const Int8Gemm<float>&, Int8GemmTile, cudaStream_t);
template cudaError_t int8_gemm(const Int8Gemm<__nv_bfloat16>&, Int8GemmTile, cudaStream_t);

}  // namespace bitnet::cuda
