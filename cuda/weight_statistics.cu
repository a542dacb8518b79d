// SPDX-License-Identifier: MIT
// One scale for all weights: half a warp per tile, then a block that adds up the tile sums. Scales of
// groups: half a warp per group. Both sums come from one pass over the weights.
#include "cuda/weight_statistics.h"

#include "cuda/gpu.h"
#include "cuda/tile_sums.cuh"
#include "cuda/weight_scale.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kHalfWarps = kThreads / kSumLanes;

struct Sums {
  double magnitudes, values;
};

// Of one tile; the lanes of a half warp that has none give count 0.
template <bool kMagnitudes, bool kValues>
BITNET_DEVICE Sums sums_of_tile(const float* w, int count) {
  Sums sums{0.0, 0.0};
  for_sum_lane(w, count, [&](float value) {
    const double v = static_cast<double>(value);
    if constexpr (kMagnitudes) sums.magnitudes += fabs(v);
    if constexpr (kValues) sums.values += v;
  });
  if constexpr (kMagnitudes) sums.magnitudes = fold_sum_lanes(sums.magnitudes);
  if constexpr (kValues) sums.values = fold_sum_lanes(sums.values);
  return sums;
}

BITNET_DEVICE float scale_of_sum(double magnitudes, std::int64_t count) {
  return bounded_scale(static_cast<float>(magnitudes / static_cast<double>(count)));
}
BITNET_DEVICE float mean_of_sum(double values, std::int64_t count) {
  return static_cast<float>(values / static_cast<double>(count));
}

// tile_sums: those of the magnitudes, then those of the values.
template <bool kMagnitudes, bool kValues>
__global__ void __launch_bounds__(kThreads)
    tile_sums_kernel(WeightStatistics op, std::int64_t tiles) {
  const std::int64_t tile =
      static_cast<std::int64_t>(blockIdx.x) * kHalfWarps + threadIdx.x / kSumLanes;
  const std::int64_t first = tile * kSumTile;
  const std::int64_t left = max(op.elements - first, static_cast<std::int64_t>(0));
  const Sums sums = sums_of_tile<kMagnitudes, kValues>(
      op.w + first, static_cast<int>(min(left, static_cast<std::int64_t>(kSumTile))));
  if (tile >= tiles || threadIdx.x % kSumLanes != 0) return;
  if constexpr (kMagnitudes) op.tile_sums[tile] = sums.magnitudes;
  if constexpr (kValues) op.tile_sums[tiles + tile] = sums.values;
}

// Block 0 makes the scale and block 1 the mean, if they are wanted: the two sums take long, because
// their order leaves one thread for each.
__global__ void __launch_bounds__(kThreads)
    whole_statistics_kernel(WeightStatistics op, std::int64_t tiles) {
  const bool is_mean = blockIdx.x != 0;
  if ((is_mean ? op.means : op.scales) == nullptr) return;  // the whole block
  const double sum = ascending_sum<kThreads>(op.tile_sums + (is_mean ? tiles : 0), tiles);
  if (threadIdx.x != 0) return;
  if (is_mean) {
    *op.means = mean_of_sum(sum, op.elements);
  } else {
    *op.scales = scale_of_sum(sum, op.elements);
  }
}

template <bool kMagnitudes, bool kValues>
__global__ void __launch_bounds__(kThreads)
    group_statistics_kernel(WeightStatistics op, std::int64_t groups) {
  const std::int64_t group =
      static_cast<std::int64_t>(blockIdx.x) * kHalfWarps + threadIdx.x / kSumLanes;
  const bool there = group < groups;
  const float* w = op.w + (there ? group * op.group_size : 0);
  Sums sums{0.0, 0.0};
  for (std::int64_t first = 0; first < op.group_size; first += kSumTile) {
    const std::int64_t left = there ? op.group_size - first : 0;
    const Sums tile = sums_of_tile<kMagnitudes, kValues>(
        w + first, static_cast<int>(min(left, static_cast<std::int64_t>(kSumTile))));
    sums.magnitudes += tile.magnitudes;
    sums.values += tile.values;
  }
  if (!there || threadIdx.x % kSumLanes != 0) return;
  if constexpr (kMagnitudes) op.scales[group] = scale_of_sum(sums.magnitudes, op.group_size);
  if constexpr (kValues) op.means[group] = mean_of_sum(sums.values, op.group_size);
}

unsigned blocks_for(std::int64_t half_warps) {
  return static_cast<unsigned>((half_warps + kHalfWarps - 1) / kHalfWarps);
}

template <bool kMagnitudes, bool kValues>
cudaError_t launch_kernels(const WeightStatistics& op, cudaStream_t stream) {
  if (op.group_size < op.elements) {
    const std::int64_t groups = op.elements / op.group_size;
    return gpu::launch(group_statistics_kernel<kMagnitudes, kValues>, dim3(blocks_for(groups)),
                       dim3(kThreads), 0, stream, op, groups);
  }
  const std::int64_t tiles = sum_tiles_in(op.elements);
  const cudaError_t error =
      gpu::launch(tile_sums_kernel<kMagnitudes, kValues>, dim3(blocks_for(tiles)), dim3(kThreads),
                  0, stream, op, tiles);
  if (error != cudaSuccess) return error;
  return gpu::launch(whole_statistics_kernel, dim3(kValues ? 2 : 1), dim3(kThreads), 0, stream, op,
                     tiles);
}

}  // namespace

std::int64_t statistics_tiles(std::int64_t elements, std::int64_t group_size) {
  return group_size < elements ? 0 : 2 * sum_tiles_in(elements);
}

cudaError_t weight_statistics(const WeightStatistics& op, cudaStream_t stream) {
  if (op.elements < 1 || op.elements >> 32 != 0 || op.group_size < 1 ||
      op.elements % op.group_size != 0 || (op.scales == nullptr && op.means == nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (op.means == nullptr) return launch_kernels<true, false>(op, stream);
  if (op.scales == nullptr) return launch_kernels<false, true>(op, stream);
  return launch_kernels<true, true>(op, stream);
}

}  // namespace bitnet::cuda
