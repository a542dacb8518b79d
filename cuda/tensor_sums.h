// SPDX-License-Identifier: MIT
// Sums over whole tensors, in double and in the order of tile_sums.cuh: two launches for as many
// tensors as a kernel takes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

namespace bitnet::cuda {

inline constexpr int kSumTile = 4096;  // elements
constexpr std::int64_t sum_tiles_in(std::int64_t elements) {
  return (elements + kSumTile - 1) / kSumTile;
}

enum class SumTerm : std::uint8_t { value, magnitude, square };

struct TensorToSum {
  const float* x;
  std::int64_t elements;  // below 2^43; may be 0
};

// Of all tensors together.
std::int64_t tensor_sum_tiles(std::span<const TensorToSum> tensors);

// tiles[i] = the sum of tile i, those of the tensors one after the other.
cudaError_t tile_sums(SumTerm term, std::span<const TensorToSum> tensors, double* tiles,
                      cudaStream_t stream);
// sums[i] = the sum of tensor i. tiles: scratch for tensor_sum_tiles() doubles.
cudaError_t tensor_sums(SumTerm term, std::span<const TensorToSum> tensors, double* tiles,
                        double* sums, cudaStream_t stream);

}  // namespace bitnet::cuda
