// SPDX-License-Identifier: MIT
// Half a warp for each tile of any of the tensors, and a warp is a block, because what it stages is
// the limit; then one block per tensor for its tile sums.
#include "cuda/tensor_sums.h"

#include "cuda/gpu.h"
#include "cuda/tensor_list.cuh"
#include "cuda/tile_sums.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 128;

using List = TensorList<TensorToSum>;

template <SumTerm kTerm>
BITNET_DEVICE double term_of(float x) {
  const double value = static_cast<double>(x);
  if constexpr (kTerm == SumTerm::square) return value * value;  // exact, of two floats
  if constexpr (kTerm == SumTerm::magnitude) return fabs(value);
  return value;
}

template <SumTerm kTerm>
__global__ void __launch_bounds__(gpu::kWarpSize) tile_sums_kernel(List list, double* tiles) {
  BITNET_SHARED_ARRAY(float, staged, kHalfWarps* kSumTile);
  const std::uint32_t half = threadIdx.x / kSumLanes, tile = blockIdx.x * kHalfWarps + half;
  const bool there = tile < list.parts();
  const float* x = list.tensors[0].x;
  int count = 0;
  if (there) {
    const int tensor = list.tensor_of(tile);
    const std::int64_t first = static_cast<std::int64_t>(tile - list.first_part[tensor]) * kSumTile;
    const std::int64_t left = list.tensors[tensor].elements - first;
    x = list.tensors[tensor].x + first;
    count = static_cast<int>(min(left, static_cast<std::int64_t>(kSumTile)));
  }
  float* const of_tile = staged + half * kSumTile;
  stage_elements(x, count, of_tile);
  double sum = 0.0;
  for_sum_lane(of_tile, count, [&](float value) { sum += term_of<kTerm>(value); });
  sum = fold_sum_lanes(sum);
  if (there && threadIdx.x % kSumLanes == 0) tiles[tile] = sum;
}

__global__ void __launch_bounds__(kThreads)
    tensor_sums_kernel(List list, const double* tiles, double* sums) {
  const std::uint32_t first = list.first_part[blockIdx.x];
  const double sum =
      ascending_sum<kThreads>(tiles + first, list.first_part[blockIdx.x + 1] - first);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

std::int64_t tiles_of(const TensorToSum& tensor) { return sum_tiles_in(tensor.elements); }

}  // namespace

std::int64_t tensor_sum_tiles(std::span<const TensorToSum> tensors) {
  std::int64_t tiles = 0;
  for (const TensorToSum& tensor : tensors) tiles += tiles_of(tensor);
  return tiles;
}

cudaError_t tile_sums(SumTerm term, std::span<const TensorToSum> tensors, double* tiles,
                      cudaStream_t stream) {
  const auto kernel = term == SumTerm::square      ? tile_sums_kernel<SumTerm::square>
                      : term == SumTerm::magnitude ? tile_sums_kernel<SumTerm::magnitude>
                                                   : tile_sums_kernel<SumTerm::value>;
  return for_each_list(tensors, tiles_of, [&](const List& list, std::int64_t tiles_before) {
    const std::uint32_t count = list.first_part[list.count];
    if (count == 0) return cudaSuccess;
    return gpu::launch(kernel, dim3((count + kHalfWarps - 1) / kHalfWarps), dim3(gpu::kWarpSize), 0,
                       stream, list, tiles + tiles_before);
  });
}

cudaError_t tensor_sums(SumTerm term, std::span<const TensorToSum> tensors, double* tiles,
                        double* sums, cudaStream_t stream) {
  const cudaError_t error = tile_sums(term, tensors, tiles, stream);
  if (error != cudaSuccess) return error;
  double* next = sums;
  return for_each_list(tensors, tiles_of, [&](const List& list, std::int64_t tiles_before) {
    double* const of_list = next;
    next += list.count;
    return gpu::launch(tensor_sums_kernel, dim3(static_cast<unsigned>(list.count)), dim3(kThreads),
                       0, stream, list, tiles + tiles_before, of_list);
  });
}

}  // namespace bitnet::cuda
