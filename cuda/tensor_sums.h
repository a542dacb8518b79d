// SPDX-License-Identifier: MIT
// Sums over whole tensors, in double and in the order of tile_sums.cuh: two launches for up to
// kMostSummedTensors of them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace bitnet::cuda {

enum class SumTerm : std::uint8_t { value, square };

struct TensorToSum {
  const float* x;
  std::int64_t elements;  // may be 0
};

inline constexpr std::size_t kMostSummedTensors = 128;  // arguments of a kernel may have 4 KB

struct TensorSums {
  TensorToSum tensors[kMostSummedTensors];
  std::size_t count;  // of the tensors
  double* tile_sums;  // scratch for tensor_sum_tiles() doubles
  double* sums;       // [count]
};

std::int64_t tensor_sum_tiles(const TensorSums& op);

// cudaErrorInvalidValue for no tensors or too many.
cudaError_t tensor_sums(SumTerm term, const TensorSums& op, cudaStream_t stream);

}  // namespace bitnet::cuda
