// SPDX-License-Identifier: MIT
// How the tiles are multiplied is in gemm_tiles.cuh; here, how their groups are added up.
#include "cuda/gradient_gemm.h"

#include "cuda/gemm_rows.cuh"
#include "cuda/gpu.h"

namespace bitnet::cuda {
namespace {

using LargeTile = GemmTile<128, 128, 32, 64, 3, 2, 0>;
using LargeGroupsTile = GemmTile<128, 64, 32, 64, 3, 2, 0>;  // several: sums in int32 and in fp32
using SmallTile = GemmTile<64, 64, 32, 32, 3, 4, 0>;

constexpr int kMostDepth = 1 << 24;
static_assert(kGradientGroupStep % kPartDepth == 0);

BITNET_DEVICE int group_end(const GradientGemm& p, int group) {
  return p.group_size > 0 ? (group + 1) * p.group_size : p.group_ends[group];
}

// Where a row of the result is.
struct PlacedRow {
  Reals y;
  const float* addend;
  int row;  // of the part
};
BITNET_DEVICE PlacedRow find_row(const GradientGemm& p, int row) {
  int part = 0;
  while (part + 1 < p.parts && row >= p.part[part + 1].first_row) ++part;
  return {p.part[part].y, p.part[part].addend, row - p.part[part].first_row};
}

template <typename Tile>
BITNET_DEVICE void set_quad(GemmSums<Tile, float>& f, int index, int q, float4 x) {
  auto &low = f[index / 2][2 * q], &high = f[index / 2][2 * q + 1];
  const int e = index % 2 * 2;
  low[e] = x.x, low[e + 1] = x.y;
  high[e] = x.z, high[e + 1] = x.w;
}

// Adds a group's sums to f, and clears them.
template <typename Tile>
BITNET_DEVICE void fold(const float (&scale)[ThreadRows<Tile>::kCount], GemmSums<Tile, int>& sums,
                        GemmSums<Tile, float>& f) {
#pragma unroll
  for (int i = 0; i < Tile::kRowFragments; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kColumnFragments; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        f[i][j][e] = fmaf(scale[2 * i + e / 2], static_cast<float>(sums[i][j][e]), f[i][j][e]);
        sums[i][j][e] = 0;
      }
    }
  }
}

// One block per tile of y; x: columns, y: rows.
template <typename Tile, bool kOneGroup>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kResidentBlocks)
    gradient_gemm_kernel(GradientGemm p, bool aligned) {
  BITNET_DYNAMIC_SHARED(unsigned char, stages);  // [kStages, kLines, kStageDepth]
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_column = static_cast<int>(blockIdx.x) * Tile::kColumns;
  TileProduct<Tile> product({p.a, p.rows}, {p.b, p.columns}, p.depth, first_row, first_column,
                            stages);
  const ThreadRows<Tile> rows(first_row, p.rows);
  const ThreadColumns<Tile> columns(first_column, p.columns, p.columns, aligned);
  constexpr int kRows = ThreadRows<Tile>::kCount;
  float scale[kRows];  // of the group that is being summed
  GemmSums<Tile, int> sums = {};
  GemmSums<Tile, float> f = {};
  if constexpr (kOneGroup) {
    product.template multiply<int>(sums);
    rows.load(p.scale, 1, scale);  // now, for fewer registers before
  } else {
    rows.load(p.scale, p.groups, scale);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (!rows.inside(i)) continue;
      const PlacedRow place = find_row(p, rows.at(i));
      float4 addend[Tile::kQuads];
      columns.load(place.addend, place.row, addend);
#pragma unroll
      for (int q = 0; q < Tile::kQuads; ++q) set_quad<Tile>(f, i, q, addend[q]);
    }
    int group = 0, end = group_end(p, 0) / kPartDepth;
    product.template multiply<int>(sums, [&](int part) {
      if (part != end || group + 1 >= p.groups) return;
      fold<Tile>(scale, sums, f);
      rows.load(p.scale + ++group, p.groups, scale);
      if (group + 1 < p.groups) end = group_end(p, group) / kPartDepth;
    });
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (!rows.inside(i)) continue;
    const PlacedRow place = find_row(p, rows.at(i));
    float4 before[Tile::kQuads];
    if constexpr (kOneGroup) columns.load(place.addend, place.row, before);
#pragma unroll
    for (int q = 0; q < Tile::kQuads; ++q) {
      if constexpr (!kOneGroup) before[q] = quad_of<Tile, float>(f, i, q);
      const float4 sum = quad_of<Tile, int>(sums, i, q);
      columns.store(
          place.y, place.row, q,
          make_float4(fmaf(scale[i], sum.x, before[q].x), fmaf(scale[i], sum.y, before[q].y),
                      fmaf(scale[i], sum.z, before[q].z), fmaf(scale[i], sum.w, before[q].w)));
    }
  }
}

template <typename Tile, bool kOneGroup>
cudaError_t launch(const GradientGemm& p, cudaStream_t stream) {
  return launch_tiles<Tile>(gradient_gemm_kernel<Tile, kOneGroup>,
                            tiles_of(p.columns, Tile::kColumns), p.rows, stream, p,
                            p.columns % kQuad == 0);
}

bool supported(const GradientGemm& p) {
  if (p.rows < 1 || p.columns < 1 || p.depth < kChunkBytes || p.depth % kChunkBytes != 0 ||
      p.depth >= kMostDepth || p.groups < 1 || p.group_size % kGradientGroupStep != 0 ||
      p.parts < 1 || p.parts > kGradientParts || p.part[0].first_row != 0) {
    return false;
  }
  if (p.group_size == 0) {
    if (p.groups > kGradientParts) return false;
    for (int g = 0; g + 1 < p.groups; ++g) {
      if (p.group_ends[g] % kGradientGroupStep != 0) return false;
    }
  }
  for (int i = 0; i < p.parts; ++i) {
    const Reals& y = p.part[i].y;
    if (!y.aligned(kQuad * y.element_bytes()) || !quad_aligned(p.part[i].addend)) return false;
  }
  return true;
}

}  // namespace

cudaError_t gradient_gemm(const GradientGemm& p, GradientGemmTile tile, cudaStream_t stream) {
  if (!supported(p)) return cudaErrorInvalidValue;
  if (tile == GradientGemmTile::large) {
    return p.groups == 1 ? launch<LargeTile, true>(p, stream)
                         : launch<LargeGroupsTile, false>(p, stream);
  }
  return p.groups == 1 ? launch<SmallTile, true>(p, stream) : launch<SmallTile, false>(p, stream);
}

}  // namespace bitnet::cuda
