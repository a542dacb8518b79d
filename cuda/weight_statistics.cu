// SPDX-License-Identifier: MIT
// One scale for all weights: the tile sums of tensor_sums.cu, then a block for each matrix that adds
// them up. Scales of groups: half a warp per group.
#include "cuda/weight_statistics.h"

#include "cuda/gpu.h"
#include "cuda/tensor_batch.h"
#include "cuda/tensor_list.cuh"
#include "cuda/tile_sums.cuh"
#include "cuda/weight_scale.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 128;

template <WeightStatistic kWhich>
BITNET_DEVICE float statistic_of(double sum, std::int64_t count) {
  const float mean = static_cast<float>(sum / static_cast<double>(count));
  return kWhich == WeightStatistic::scale ? bounded_scale(mean) : mean;
}

struct TiledMatrix {
  std::int64_t elements;
  float* result;
};
using List = TensorList<TiledMatrix>;

template <WeightStatistic kWhich>
__global__ void __launch_bounds__(kThreads) whole_statistic_kernel(List list, const double* tiles) {
  const std::uint32_t first = list.first_part[blockIdx.x];
  const double sum =
      ascending_sum<kThreads>(tiles + first, list.first_part[blockIdx.x + 1] - first);
  const TiledMatrix& matrix = list.tensors[blockIdx.x];
  if (threadIdx.x == 0) *matrix.result = statistic_of<kWhich>(sum, matrix.elements);
}

constexpr int kPiece = 512;  // of a group, staged at once: divides a tile
constexpr int kGroupsOfBlock = kThreads / kSumLanes;

template <WeightStatistic kWhich>
__global__ void __launch_bounds__(kThreads)
    group_statistics_kernel(GroupStatistics op, std::int64_t groups) {
  BITNET_SHARED_ARRAY(float, staged, kGroupsOfBlock* kPiece);
  const int half = static_cast<int>(threadIdx.x) / kSumLanes;
  const std::int64_t group = static_cast<std::int64_t>(blockIdx.x) * kGroupsOfBlock + half;
  const bool there = group < groups;
  const float* const w = op.w + (there ? group * op.group_size : 0);
  float* const piece = staged + half * kPiece;
  double sum = 0.0, of_tile = 0.0;
  for (std::int64_t first = 0; first < op.group_size; first += kPiece) {
    const std::int64_t left = op.group_size - first;
    const int count = static_cast<int>(min(left, static_cast<std::int64_t>(kPiece)));
    stage_elements(w + first, count, piece);
    for_sum_lane(piece, count, [&](float value) {
      const double v = static_cast<double>(value);
      of_tile += kWhich == WeightStatistic::scale ? fabs(v) : v;
    });
    __syncwarp();  // before the next piece comes
    if (left <= kPiece || (first + kPiece) % kSumTile == 0) {
      sum += fold_sum_lanes(of_tile);
      of_tile = 0.0;
    }
  }
  if (there && threadIdx.x % kSumLanes == 0) {
    op.results[group] = statistic_of<kWhich>(sum, op.group_size);
  }
}

}  // namespace

cudaError_t whole_statistics(WeightStatistic which, std::span<const WholeStatistic> matrices,
                             double* tiles, cudaStream_t stream) {
  const bool scale = which == WeightStatistic::scale;
  const auto kernel = scale ? whole_statistic_kernel<WeightStatistic::scale>
                            : whole_statistic_kernel<WeightStatistic::mean>;
  cudaError_t error = cudaSuccess;
  for_each_batch(matrices, [&](std::span<const WholeStatistic> batch) {
    TensorBatch<TensorToSum> weights;
    TensorBatch<TiledMatrix> tiled;
    for (const WholeStatistic& matrix : batch) {
      if (matrix.weights.elements < 1) error = cudaErrorInvalidValue;
      weights.push_back(matrix.weights);
      tiled.push_back({matrix.weights.elements, matrix.result});
    }
    if (error != cudaSuccess) return;
    error = tile_sums(scale ? SumTerm::magnitude : SumTerm::value, weights.all(), tiles, stream);
    if (error != cudaSuccess) return;
    error = for_each_list(
        tiled.all(), [](const TiledMatrix& matrix) { return sum_tiles_in(matrix.elements); },
        [&](const List& list, std::int64_t tiles_before) {
          return gpu::launch(kernel, dim3(static_cast<unsigned>(list.count)), dim3(kThreads), 0,
                             stream, list, tiles + tiles_before);
        });
  });
  return error;
}

cudaError_t group_statistics(WeightStatistic which, const GroupStatistics& op,
                             cudaStream_t stream) {
  if (op.elements < 1 || op.elements >> 32 != 0 || op.group_size < 1 || op.group_size % 4 != 0 ||
      op.elements % op.group_size != 0) {
    return cudaErrorInvalidValue;
  }
  const std::int64_t groups = op.elements / op.group_size;
  const auto kernel = which == WeightStatistic::scale
                          ? group_statistics_kernel<WeightStatistic::scale>
                          : group_statistics_kernel<WeightStatistic::mean>;
  const dim3 blocks(static_cast<unsigned>((groups + kGroupsOfBlock - 1) / kGroupsOfBlock));
  return gpu::launch(kernel, blocks, dim3(kThreads), 0, stream, op, groups);
}

}  // namespace bitnet::cuda
