// SPDX-License-Identifier: MIT
// How the tiles are multiplied is in gemm_tiles.cuh; here, how their sums are written.
#include "cuda/bf16_gemm.h"

#include "cuda/gemm_tiles.cuh"
#include "cuda/reals.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kElementBytes = 2;
constexpr int kChunkElements = kChunkBytes / kElementBytes;
constexpr unsigned kMostGridRows = 65535;

// One block per tile of y; x: columns, y: rows. With kPairs, y is written two elements at a time.
template <typename Tile, bool kPairs>
__global__ void __launch_bounds__(Tile::kThreads) bf16_gemm_kernel(Bf16Gemm p) {
  BITNET_DYNAMIC_SHARED(unsigned char, stages);  // [kStages, kLines, kStageDepth]
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_column = static_cast<int>(blockIdx.x) * Tile::kColumns;
  GemmSums<Tile, float> sums = {};
  multiply_tile<Tile, float>({p.a, p.rows}, {p.b, p.columns}, p.depth * kElementBytes, first_row,
                             first_column, stages, sums);
  for_each_pair<Tile, float>(sums, first_row, first_column, p.rows, p.columns,
                             [&](int row, int column, float sum, float next) {
                               const std::size_t at =
                                   static_cast<std::size_t>(row) * p.columns + column;
                               const bool has_next = column + 1 < p.columns;
                               if (p.accumulate) {
                                 const float2 before = load_pair(p.y, at, kPairs, has_next);
                                 sum += before.x, next += before.y;
                               }
                               store_pair(p.y, at, kPairs, has_next, make_float2(sum, next));
                             });
}

template <typename Tile>
cudaError_t launch_tile(const Bf16Gemm& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((p.columns + Tile::kColumns - 1) / Tile::kColumns),
                  static_cast<unsigned>((p.rows + Tile::kRows - 1) / Tile::kRows));
  if (grid.y > kMostGridRows) return cudaErrorInvalidValue;
  const bool pairs = p.columns % 2 == 0 && p.y.aligned(2 * p.y.element_bytes());
  return gpu::launch(pairs ? bf16_gemm_kernel<Tile, true> : bf16_gemm_kernel<Tile, false>, grid,
                     dim3(Tile::kThreads), Tile::kSharedBytes, stream, p);
}

}  // namespace

cudaError_t bf16_gemm(const Bf16Gemm& p, Bf16GemmTile tile, cudaStream_t stream) {
  if (p.rows < 1 || p.columns < 1 || p.depth < kChunkElements || p.depth % kChunkElements != 0 ||
      p.depth >= 1 << 30) {
    return cudaErrorInvalidValue;
  }
  switch (tile) {
    case Bf16GemmTile::large:
      return launch_tile<LargeGemmTile>(p, stream);
    case Bf16GemmTile::small:
      return launch_tile<SmallGemmTile>(p, stream);
    case Bf16GemmTile::few_rows:
      break;
  }
  return launch_tile<FewRowsGemmTile>(p, stream);
}

}  // namespace bitnet::cuda
