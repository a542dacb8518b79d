// SPDX-License-Identifier: MIT
// How the tiles are multiplied is in gemm_tiles.cuh; here, how their sums become reals.
#include "cuda/int8_gemm.h"

#include "cuda/gemm_rows.cuh"
#include "cuda/gpu.h"
#include "cuda/reals.cuh"

namespace bitnet::cuda {
namespace {

using LargeTile = GemmTile<128, 128, 32, 64, 3, 2, 0>;
using SmallTile = GemmTile<64, 64, 32, 32, 3, 4, 0>;
// Groups have sums in int32 and, of those before, in fp32.
using LargeGroupsTile = GemmTile<128, 64, 32, 32, 3, 1, 0>;
using SmallGroupsTile = GemmTile<64, 64, 32, 32, 3, 2, 0>;

BITNET_DEVICE float4 sum_of(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
BITNET_DEVICE float4 scaled(float scale, const float4& x) {
  return make_float4(scale * x.x, scale * x.y, scale * x.z, scale * x.w);
}
// (row_scale * scale) * sum.
BITNET_DEVICE float4 scaled(float row_scale, const float4& scale, const float4& sum) {
  return make_float4(row_scale * scale.x * sum.x, row_scale * scale.y * sum.y,
                     row_scale * scale.z * sum.z, row_scale * scale.w * sum.w);
}

// One block per tile of y; x: columns, y: rows.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kResidentBlocks)
    int8_gemm_kernel(Int8Gemm p, bool aligned) {
  BITNET_DYNAMIC_SHARED(unsigned char, stages);  // [kStages, kLines, kStageDepth]
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_column = static_cast<int>(blockIdx.x) * Tile::kColumns;
  TileProduct<Tile> product({p.a, p.rows}, {p.b, p.columns}, p.depth, first_row, first_column,
                            stages);
  const ThreadRows<Tile> rows(first_row, p.rows);
  const ThreadColumns<Tile> columns(first_column, p.columns, p.columns, aligned);
  float row_scale[ThreadRows<Tile>::kCount];
  rows.load(p.row_scale, 1, row_scale);
  GemmSums<Tile, int> sums = {};
  product.template multiply<int>(sums);
  float4 scale[Tile::kQuads];
  if (p.kind == Int8Scale::column) {
    columns.load(p.scale, 0, scale);
  } else {
#pragma unroll
    for (int q = 0; q < Tile::kQuads; ++q) {
      scale[q] = make_float4(p.scale[0], p.scale[0], p.scale[0], p.scale[0]);
    }
  }
#pragma unroll
  for (int i = 0; i < ThreadRows<Tile>::kCount; ++i) {
    if (!rows.inside(i)) continue;
    float4 addend[Tile::kQuads];
    columns.load(p.addend, rows.at(i), addend);
#pragma unroll
    for (int q = 0; q < Tile::kQuads; ++q) {
      const float4 y = scaled(row_scale[i], scale[q], quad_of<Tile, int>(sums, i, q));
      columns.store(p.y, rows.at(i), q, p.addend == nullptr ? y : sum_of(addend[q], y));
    }
  }
}

// The scales of a thread's columns for one group.
template <typename Tile>
struct GroupScales {
  float4 of[Tile::kQuads];

  BITNET_DEVICE void load(const Int8Gemm& p, const ThreadColumns<Tile>& columns, int group,
                          int groups) {
#pragma unroll
    for (int q = 0; q < Tile::kQuads; ++q) {
      const QuadPlace place = columns.at(q);
      const float* const from = p.scale + static_cast<std::size_t>(place.column) * groups + group;
      of[q] = make_float4(place.left > 0 ? from[0] : 0.0f, place.left > 1 ? from[groups] : 0.0f,
                          place.left > 2 ? from[2 * groups] : 0.0f,
                          place.left > 3 ? from[3 * groups] : 0.0f);
    }
  }
  // Adds the group's sums to f, and clears them.
  BITNET_DEVICE void fold(GemmSums<Tile, int>& sums, GemmSums<Tile, float>& f) const {
#pragma unroll
    for (int i = 0; i < Tile::kRowFragments; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kColumnFragments; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float4& four = of[j / 2];
          const float scale =
              j % 2 == 0 ? (e % 2 == 0 ? four.x : four.y) : (e % 2 == 0 ? four.z : four.w);
          f[i][j][e] = fmaf(scale, static_cast<float>(sums[i][j][e]), f[i][j][e]);
          sums[i][j][e] = 0;
        }
      }
    }
  }
};

// The same with groups of K that have scales of their own.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kResidentBlocks)
    grouped_gemm_kernel(Int8Gemm p, bool aligned) {
  BITNET_DYNAMIC_SHARED(unsigned char, stages);  // [kStages, kLines, kStageDepth]
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_column = static_cast<int>(blockIdx.x) * Tile::kColumns;
  const int group_parts = p.group_size / kPartDepth;
  const int groups = (p.depth + p.group_size - 1) / p.group_size;
  TileProduct<Tile> product({p.a, p.rows}, {p.b, p.columns}, p.depth, first_row, first_column,
                            stages);
  const ThreadRows<Tile> rows(first_row, p.rows);
  const ThreadColumns<Tile> columns(first_column, p.columns, p.columns, aligned);
  float row_scale[ThreadRows<Tile>::kCount];
  rows.load(p.row_scale, 1, row_scale);
  GemmSums<Tile, float> f = {};
  GemmSums<Tile, int> sums = {};
  GroupScales<Tile> scales;  // of the group that is being summed
  scales.load(p, columns, 0, groups);
  int group = 0;
  product.template multiply<int>(sums, [&](int part) {
    if (part != (group + 1) * group_parts || group + 1 >= groups) return;
    scales.fold(sums, f);
    scales.load(p, columns, ++group, groups);
  });
  scales.fold(sums, f);
#pragma unroll
  for (int i = 0; i < ThreadRows<Tile>::kCount; ++i) {
    if (!rows.inside(i)) continue;
    float4 addend[Tile::kQuads];
    columns.load(p.addend, rows.at(i), addend);
#pragma unroll
    for (int q = 0; q < Tile::kQuads; ++q) {
      const float4 y = scaled(row_scale[i], quad_of<Tile, float>(f, i, q));
      columns.store(p.y, rows.at(i), q, p.addend == nullptr ? y : sum_of(addend[q], y));
    }
  }
}

template <typename Tile, typename Kernel>
cudaError_t launch(Kernel kernel, const Int8Gemm& p, cudaStream_t stream) {
  return launch_tiles<Tile>(kernel, tiles_of(p.columns, Tile::kColumns), p.rows, stream, p,
                            quad_rows(p.y, p.columns));
}

constexpr int kWriteThreads = 128;
constexpr int kWriteVector = 4;  // elements of a thread

// One block per part of a row; x: rows, y: parts.
__global__ void __launch_bounds__(kWriteThreads)
    write_sums_kernel(Int8Gemm p, const std::int32_t* sums) {
  const int row = static_cast<int>(blockIdx.x);
  const int column = static_cast<int>(blockIdx.y * kWriteThreads + threadIdx.x) * kWriteVector;
  if (column >= p.columns) return;
  const std::size_t at = static_cast<std::size_t>(row) * p.columns + column;
  const int4 sum = gpu::load_vector<int4>(sums + at);
  const float4 scale = p.kind == Int8Scale::column
                           ? gpu::load_vector<float4>(p.scale + column)
                           : make_float4(p.scale[0], p.scale[0], p.scale[0], p.scale[0]);
  float4 y = scaled(p.row_scale[row], scale,
                    make_float4(static_cast<float>(sum.x), static_cast<float>(sum.y),
                                static_cast<float>(sum.z), static_cast<float>(sum.w)));
  if (p.addend != nullptr) y = sum_of(gpu::load_vector<float4>(p.addend + at), y);
  store_four(p.y, at, y);
}

}  // namespace

cudaError_t int8_gemm(const Int8Gemm& p, Int8GemmTile tile, cudaStream_t stream) {
  const bool groups = has_groups(p.kind), large = tile == Int8GemmTile::large;
  if (p.rows < 1 || p.columns < 1 || p.depth < kChunkBytes || p.depth % kChunkBytes != 0 ||
      p.depth >= 1 << 24 ||
      (groups && (p.group_size < kPartDepth || p.group_size % kPartDepth != 0))) {
    return cudaErrorInvalidValue;
  }
  if (groups) {
    return large ? launch<LargeGroupsTile>(grouped_gemm_kernel<LargeGroupsTile>, p, stream)
                 : launch<SmallGroupsTile>(grouped_gemm_kernel<SmallGroupsTile>, p, stream);
  }
  return large ? launch<LargeTile>(int8_gemm_kernel<LargeTile>, p, stream)
               : launch<SmallTile>(int8_gemm_kernel<SmallTile>, p, stream);
}

cudaError_t write_sums(const Int8Gemm& p, const std::int32_t* sums, cudaStream_t stream) {
  if (p.rows < 1 || p.columns < 1 || p.columns % kWriteVector != 0 || has_groups(p.kind)) {
    return cudaErrorInvalidValue;
  }
  constexpr int kPart = kWriteThreads * kWriteVector;
  const dim3 grid(static_cast<unsigned>(p.rows),
                  static_cast<unsigned>((p.columns + kPart - 1) / kPart));
  return gpu::launch(write_sums_kernel, grid, dim3(kWriteThreads), 0, stream, p, sums);
}

}  // namespace bitnet::cuda
