// SPDX-License-Identifier: MIT
// Half a warp for each tile of any of the tensors, then one block per tensor for its tile sums. The
// tensors of a launch are an argument of the kernels: no copy to the device comes before them.
#include "cuda/tensor_sums.h"

#include "cuda/gpu.h"
#include "cuda/tile_sums.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kTilesOfBlock = kThreads / kSumLanes;
constexpr int kResidentBlocks = 8;  // of a multiprocessor: leaves registers for all loads in flight

struct Batch {
  TensorSums op;
  // Tensor i has the tiles first_tile[i] .. first_tile[i + 1] - 1.
  std::uint32_t first_tile[kMostSummedTensors + 1];
};
static_assert(sizeof(Batch) <= 4096);

// The last tensor that begins at or before the tile (an empty one begins where the next does).
BITNET_DEVICE int tensor_of(const Batch& batch, std::uint32_t tile) {
  int low = 0, high = static_cast<int>(batch.op.count);
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (batch.first_tile[middle] <= tile) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

template <SumTerm kTerm>
__global__ void __launch_bounds__(kThreads, kResidentBlocks) tile_sums_kernel(Batch batch) {
  const std::uint32_t tile = blockIdx.x * kTilesOfBlock + threadIdx.x / kSumLanes;
  const bool there = tile < batch.first_tile[batch.op.count];
  double sum = 0.0;
  if (there) {
    const int tensor = tensor_of(batch, tile);
    const std::int64_t first =
        static_cast<std::int64_t>(tile - batch.first_tile[tensor]) * kSumTile;
    const std::int64_t left = batch.op.tensors[tensor].elements - first;
    const int count = static_cast<int>(min(left, static_cast<std::int64_t>(kSumTile)));
    for_sum_lane(batch.op.tensors[tensor].x + first, count, [&](float value) {
      const double v = static_cast<double>(value);
      sum += kTerm == SumTerm::square ? v * v : v;  // the product of two floats is exact
    });
  }
  sum = fold_sum_lanes(sum);
  if (there && threadIdx.x % kSumLanes == 0) batch.op.tile_sums[tile] = sum;
}

__global__ void __launch_bounds__(kThreads) tensor_sums_kernel(Batch batch) {
  const std::uint32_t first = batch.first_tile[blockIdx.x];
  const double sum =
      ascending_sum<kThreads>(batch.op.tile_sums + first, batch.first_tile[blockIdx.x + 1] - first);
  if (threadIdx.x == 0) batch.op.sums[blockIdx.x] = sum;
}

}  // namespace

std::int64_t tensor_sum_tiles(const TensorSums& op) {
  std::int64_t tiles = 0;
  for (std::size_t i = 0; i < op.count; ++i) tiles += sum_tiles_in(op.tensors[i].elements);
  return tiles;
}

cudaError_t tensor_sums(SumTerm term, const TensorSums& op, cudaStream_t stream) {
  if (op.count < 1 || op.count > kMostSummedTensors || tensor_sum_tiles(op) >> 31 != 0) {
    return cudaErrorInvalidValue;
  }
  Batch batch{op, {}};
  std::uint32_t tiles = 0;
  for (std::size_t i = 0; i < op.count; ++i) {
    tiles += static_cast<std::uint32_t>(sum_tiles_in(op.tensors[i].elements));
    batch.first_tile[i + 1] = tiles;
  }
  if (tiles > 0) {
    const auto kernel = term == SumTerm::square ? tile_sums_kernel<SumTerm::square>
                                                : tile_sums_kernel<SumTerm::value>;
    const dim3 blocks((tiles + kTilesOfBlock - 1) / kTilesOfBlock);
    const cudaError_t error = gpu::launch(kernel, blocks, dim3(kThreads), 0, stream, batch);
    if (error != cudaSuccess) return error;
  }
  return gpu::launch(tensor_sums_kernel, dim3(static_cast<unsigned>(op.count)), dim3(kThreads), 0,
                     stream, batch);
}

}  // namespace bitnet::cuda
