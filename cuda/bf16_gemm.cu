// SPDX-License-Identifier: MIT
// How the tiles are multiplied is in gemm_tiles.cuh; here, how their sums are written.
#include "cuda/bf16_gemm.h"

#include "cuda/gemm_rows.cuh"
#include "cuda/gpu.h"

namespace bitnet::cuda {
namespace {

using LargeTile = GemmTile<128, 128, 64, 64, 3, 2, 1>;
using SmallTile = GemmTile<64, 64, 32, 32, 3, 4, 1>;
using FewRowsTile = GemmTile<16, 16, 16, 16, 8, 6, 1>;  // a warp with much of b under way

constexpr int kElementBytes = 2;
constexpr int kChunkElements = kChunkBytes / kElementBytes;

// One block per tile of y; x: columns, y: rows.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kResidentBlocks)
    bf16_gemm_kernel(Bf16Gemm p, bool aligned) {
  BITNET_DYNAMIC_SHARED(unsigned char, stages);  // [kStages, kLines, kStageDepth]
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_column = static_cast<int>(blockIdx.x) * Tile::kColumns;
  TileProduct<Tile> product({p.a, p.rows}, {p.b, p.columns}, p.depth * kElementBytes, first_row,
                            first_column, stages);
  const ThreadRows<Tile> rows(first_row, p.rows);
  const ThreadColumns<Tile> columns(first_column, p.columns, p.columns, aligned);
  GemmSums<Tile, float> sums = {};
  product.template multiply<float>(sums);
#pragma unroll
  for (int i = 0; i < ThreadRows<Tile>::kCount; ++i) {
    if (!rows.inside(i)) continue;
    float4 y[Tile::kQuads];
    if (p.accumulate) columns.load(p.y, rows.at(i), y);
#pragma unroll
    for (int q = 0; q < Tile::kQuads; ++q) {
      const float4 sum = quad_of<Tile, float>(sums, i, q);
      columns.store(
          p.y, rows.at(i), q,
          p.accumulate ? make_float4(sum.x + y[q].x, sum.y + y[q].y, sum.z + y[q].z, sum.w + y[q].w)
                       : sum);
    }
  }
}

template <typename Tile>
cudaError_t launch(const Bf16Gemm& p, cudaStream_t stream) {
  return launch_tiles<Tile>(bf16_gemm_kernel<Tile>, tiles_of(p.columns, Tile::kColumns), p.rows,
                            stream, p, quad_rows(p.y, p.columns));
}

}  // namespace

cudaError_t bf16_gemm(const Bf16Gemm& p, Bf16GemmTile tile, cudaStream_t stream) {
  if (p.rows < 1 || p.columns < 1 || p.depth < kChunkElements || p.depth % kChunkElements != 0 ||
      p.depth >= 1 << 24) {
    return cudaErrorInvalidValue;
  }
  switch (tile) {
    case Bf16GemmTile::large:
      return launch<LargeTile>(p, stream);
    case Bf16GemmTile::small:
      return launch<SmallTile>(p, stream);
    case Bf16GemmTile::few_rows:
      break;
  }
  return launch<FewRowsTile>(p, stream);
}

}  // namespace bitnet::cuda
