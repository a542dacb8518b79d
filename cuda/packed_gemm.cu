// SPDX-License-Identifier: MIT
// How the tiles are multiplied is in gemm_tiles.cuh; here, how their sums become reals.
#include "cuda/packed_gemm.h"

#include "cuda/gemm_rows.cuh"
#include "cuda/gpu.h"

namespace bitnet::cuda {
namespace {

using LargeTile = GemmTile<64, 128, 32, 64, 4, 4, 0, Columns::packed>;
using SmallTile = GemmTile<64, 64, 16, 64, 3, 4, 0, Columns::packed>;

// Sums of the activations' codes, of the thread's rows: what makes codes trit + 1 trits again.
template <typename Tile>
struct RowSums {
  int of[ThreadRows<Tile>::kCount] = {};

  BITNET_DEVICE void add(const SliceFragments<Tile>& fragments) {
    constexpr int kOnes = 0x01010101;
#pragma unroll
    for (int i = 0; i < Tile::kRowFragments; ++i) {  // words: rows 0-7, 8-15, of both chunks
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        int& sum = of[2 * i + w % 2];
        sum = __dp4a(static_cast<int>(fragments.a[i][w]), kOnes, sum);
      }
    }
  }
  // Four lanes share a row.
  BITNET_DEVICE void complete() {
#pragma unroll
    for (int& sum : of) {
      sum += __shfl_xor_sync(gpu::kWholeWarp, sum, 1);
      sum += __shfl_xor_sync(gpu::kWholeWarp, sum, 2);
    }
  }
  BITNET_DEVICE void center(GemmSums<Tile, int>& sums) const {
#pragma unroll
    for (int i = 0; i < Tile::kRowFragments; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kColumnFragments; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int times = j / 2 % 2 == 0 ? 0 : 2;  // quarters 1 and 3 have codes times 4
          sums[i][j][e] = (sums[i][j][e] >> times) - of[2 * i + e / 2];
        }
      }
    }
  }
};

// The tile behind the last of each matrix, and of all for those that are not there. A block begins with
// reading them: few bytes, all at once.
struct TileEnds {
  int end[kPackedGemvProducts];
};

// One block per tile of a y; x: tiles of all matrices, y: tokens.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kResidentBlocks)
    packed_gemm_kernel(PackedGemv p, TileEnds tiles) {
  BITNET_DYNAMIC_SHARED(unsigned char, stages);  // [kStages, kLines, kStageDepth]
  int tile = static_cast<int>(blockIdx.x), matrix = 0, first_tile = 0;
#pragma unroll
  for (int i = 0; i + 1 < kPackedGemvProducts; ++i) {
    if (tile < tiles.end[i]) continue;
    matrix = i + 1;
    first_tile = tiles.end[i];
  }
  tile -= first_tile;
  const PackedMatrix& m = p.matrix[matrix];
  const int quarter = m.columns / 4;
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_line = tile * Tile::kColumnLines;
  TileProduct<Tile> product({p.codes, p.tokens}, {m.packed, quarter}, p.depth, first_row,
                            first_line, stages);
  const ThreadRows<Tile> rows(first_row, p.tokens);
  const ThreadColumns<Tile> columns(first_line, quarter, m.columns, quarter % kQuad == 0);
  float scale[ThreadRows<Tile>::kCount];
  rows.load(p.act_scale, 1, scale);
  const float weight_scale = *m.weight_scale;
  GemmSums<Tile, int> sums = {};
  RowSums<Tile> row_sums;
  product.template multiply<int>(
      sums, Nothing(), [&](const SliceFragments<Tile>& fragments) { row_sums.add(fragments); });
  row_sums.complete();
  row_sums.center(sums);
#pragma unroll
  for (int i = 0; i < ThreadRows<Tile>::kCount; ++i) {
    if (!rows.inside(i)) continue;
    float4 residual[Tile::kQuads];
    columns.load(m.residual, rows.at(i), residual);
    const float s = scale[i] * weight_scale;
#pragma unroll
    for (int q = 0; q < Tile::kQuads; ++q) {
      const float4 sum = quad_of<Tile, int>(sums, i, q);
      float4 y = make_float4(s * sum.x, s * sum.y, s * sum.z, s * sum.w);
      if (m.residual != nullptr) {
        const float4 r = residual[q];
        y = make_float4(r.x + y.x, r.y + y.y, r.z + y.z, r.w + y.w);
      }
      columns.store(m.y, rows.at(i), q, y);
    }
  }
}

template <typename Tile>
cudaError_t launch(const PackedGemv& p, cudaStream_t stream) {
  TileEnds tiles{};
  int all = 0;
  for (int i = 0; i < kPackedGemvProducts; ++i) {
    if (i < p.products) {
      all += static_cast<int>(tiles_of(p.matrix[i].columns / 4, Tile::kColumnLines));
    }
    tiles.end[i] = all;
  }
  return launch_tiles<Tile>(packed_gemm_kernel<Tile>, static_cast<unsigned>(all), p.tokens, stream,
                            p, tiles);
}

}  // namespace

cudaError_t packed_gemm(const PackedGemv& p, PackedGemmTile tile, cudaStream_t stream) {
  bool supported = p.tokens >= 1 && p.products >= 1 && p.products <= kPackedGemvProducts &&
                   p.depth >= kChunkBytes && p.depth % kChunkBytes == 0 &&
                   p.depth <= kPackedGemmDepth;
  for (int i = 0; supported && i < p.products; ++i) {
    const PackedMatrix& m = p.matrix[i];
    supported = m.columns >= 4 && m.columns % 4 == 0 && m.groups == 0 &&
                m.y.aligned(kQuad * m.y.element_bytes()) && quad_aligned(m.residual);
  }
  if (!supported) return cudaErrorInvalidValue;
  return tile == PackedGemmTile::large ? launch<LargeTile>(p, stream)
                                       : launch<SmallTile>(p, stream);
}

}  // namespace bitnet::cuda
