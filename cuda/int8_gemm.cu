// SPDX-License-Identifier: MIT
// How the tiles are multiplied is in gemm_tiles.cuh; here, how their sums become reals.
#include "cuda/int8_gemm.h"

#include "cuda/gemm_tiles.cuh"
#include "cuda/gpu.h"
#include "cuda/reals.cuh"

namespace bitnet::cuda {
namespace {

// Elements `column` (even) and the next of a row of `columns`.
BITNET_DEVICE float2 load_pair(const float* from, int column, int columns) {
  if (columns % 2 == 0) return gpu::load_vector<float2>(from + column);
  return make_float2(from[column], column + 1 < columns ? from[column + 1] : 0.0f);
}
BITNET_DEVICE void store_pair(const Reals& y, std::size_t row_start, int column, int columns,
                              float2 pair) {
  store_pair(y, row_start + column, columns % 2 == 0, column + 1 < columns, pair);
}

// y of the kinds without groups.
BITNET_DEVICE float scaled(const Int8Gemm& p, float scale, int sum, float addend) {
  const float value = static_cast<float>(sum);
  if (p.addend == nullptr) return scale * value;
  return p.fused ? fmaf(scale, value, addend) : addend + scale * value;
}

// The scales of one group that a thread needs: of its rows or of its columns.
template <typename Tile, bool kOfRows>
struct GroupScales {
  static constexpr int kFragments = kOfRows ? Tile::kRowFragments : Tile::kColumnFragments;
  float of[kFragments][2];

  BITNET_DEVICE void load(const Int8Gemm& p, int first_row, int first_column, int group,
                          int groups) {
    const WarpPlace<Tile> warp;
#pragma unroll
    for (int i = 0; i < kFragments; ++i) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int index = kOfRows ? first_row + warp.row + i * 16 + e * 8 + warp.lane / 4
                                  : first_column + warp.column + i * 8 + warp.lane % 4 * 2 + e;
        const bool inside = index < (kOfRows ? p.rows : p.columns);
        of[i][e] = inside ? p.scale[static_cast<std::size_t>(index) * groups + group] : 0.0f;
      }
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
          const float scale = kOfRows ? of[i][e / 2] : of[j][e % 2];
          f[i][j][e] = fmaf(scale, static_cast<float>(sums[i][j][e]), f[i][j][e]);
          sums[i][j][e] = 0;
        }
      }
    }
  }
};

// One block per tile of y; x: columns, y: rows.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads) int8_gemm_kernel(Int8Gemm p) {
  BITNET_DYNAMIC_SHARED(unsigned char, stages);  // [kStages, kLines, kStageDepth]
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_column = static_cast<int>(blockIdx.x) * Tile::kColumns;
  GemmSums<Tile, int> sums = {};
  multiply_tile<Tile, int>({p.a, p.rows}, {p.b, p.columns}, p.depth, first_row, first_column,
                           stages, sums);
  for_each_pair<Tile, int>(
      sums, first_row, first_column, p.rows, p.columns,
      [&](int row, int column, int sum, int next) {
        const std::size_t at = static_cast<std::size_t>(row) * p.columns;
        float2 addend = make_float2(0.0f, 0.0f);
        if (p.addend != nullptr) addend = load_pair(p.addend + at, column, p.columns);
        const float2 scale = p.kind == Int8Scale::column ? load_pair(p.scale, column, p.columns)
                                                         : make_float2(p.scale[0], p.scale[0]);
        const float row_scale = p.row_scale[row];
        store_pair(p.y, at, column, p.columns,
                   make_float2(scaled(p, row_scale * scale.x, sum, addend.x),
                               scaled(p, row_scale * scale.y, next, addend.y)));
      });
}

// The same with groups, of rows or of columns.
template <typename Tile, bool kOfRows>
__global__ void __launch_bounds__(Tile::kThreads) grouped_gemm_kernel(Int8Gemm p) {
  BITNET_DYNAMIC_SHARED(unsigned char, stages);  // [kStages, kLines, kStageDepth]
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_column = static_cast<int>(blockIdx.x) * Tile::kColumns;
  const int group_steps = p.group_size / kStageDepth;
  const int groups = (p.depth + p.group_size - 1) / p.group_size;
  GemmSums<Tile, float> f = {};
  if (kOfRows && p.addend != nullptr) {
    for_each_pair<Tile, float>(f, first_row, first_column, p.rows, p.columns,
                               [&](int row, int column, float& value, float& next) {
                                 const float2 pair =
                                     load_pair(p.addend + static_cast<std::size_t>(row) * p.columns,
                                               column, p.columns);
                                 value = pair.x;
                                 next = pair.y;
                               });
  }
  GemmSums<Tile, int> sums = {};
  GroupScales<Tile, kOfRows> scales;  // of the group that is being summed
  scales.load(p, first_row, first_column, 0, groups);
  multiply_tile<Tile, int>({p.a, p.rows}, {p.b, p.columns}, p.depth, first_row, first_column,
                           stages, sums, [&](int step) {
                             if (step == 0 || step % group_steps != 0) return;
                             scales.fold(sums, f);
                             scales.load(p, first_row, first_column, step / group_steps, groups);
                           });
  scales.fold(sums, f);
  for_each_pair<Tile, float>(
      f, first_row, first_column, p.rows, p.columns,
      [&](int row, int column, float value, float next) {
        const std::size_t at = static_cast<std::size_t>(row) * p.columns;
        float2 pair = make_float2(value, next);
        if constexpr (!kOfRows) {
          pair = make_float2(value * p.row_scale[row], next * p.row_scale[row]);
          if (p.addend != nullptr) {
            const float2 addend = load_pair(p.addend + at, column, p.columns);
            pair = make_float2(addend.x + pair.x, addend.y + pair.y);
          }
        }
        store_pair(p.y, at, column, p.columns, pair);
      });
}

template <typename Tile>
cudaError_t launch_tile(const Int8Gemm& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((p.columns + Tile::kColumns - 1) / Tile::kColumns),
                  static_cast<unsigned>((p.rows + Tile::kRows - 1) / Tile::kRows));
  const auto kernel = p.kind == Int8Scale::column_groups ? grouped_gemm_kernel<Tile, false>
                      : p.kind == Int8Scale::row_groups  ? grouped_gemm_kernel<Tile, true>
                                                         : int8_gemm_kernel<Tile>;
  return gpu::launch(kernel, grid, dim3(Tile::kThreads), Tile::kSharedBytes, stream, p);
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
  const float row_scale = p.row_scale[row];
  float4 scale, addend = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (p.kind == Int8Scale::column) {
    scale = gpu::load_vector<float4>(p.scale + column);
  } else {
    scale = make_float4(p.scale[0], p.scale[0], p.scale[0], p.scale[0]);
  }
  if (p.addend != nullptr) addend = gpu::load_vector<float4>(p.addend + at);
  store_four(p.y, at,
             make_float4(scaled(p, row_scale * scale.x, sum.x, addend.x),
                         scaled(p, row_scale * scale.y, sum.y, addend.y),
                         scaled(p, row_scale * scale.z, sum.z, addend.z),
                         scaled(p, row_scale * scale.w, sum.w, addend.w)));
}

}  // namespace

cudaError_t int8_gemm(const Int8Gemm& p, Int8GemmTile tile, cudaStream_t stream) {
  if (p.rows < 1 || p.columns < 1 || p.depth < kChunkBytes || p.depth % kChunkBytes != 0 ||
      p.depth >= 1 << 24 ||
      (has_groups(p.kind) && (p.group_size < kStageDepth || p.group_size % kStageDepth != 0))) {
    return cudaErrorInvalidValue;
  }
  return tile == Int8GemmTile::large ? launch_tile<LargeGemmTile>(p, stream)
                                     : launch_tile<SmallGemmTile>(p, stream);
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
