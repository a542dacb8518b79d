// SPDX-License-Identifier: MIT
// Scale and mean of weights, for all of them or for each group of columns that has its own:
//   absmean scale  max(mean |w|, 1e-5)           mean  mean of w (binary weights)
// with the sums of core/quant/ternary.h, bit for bit. A NaN or an infinity shows in both.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "cuda/tensor_sums.h"

namespace bitnet::cuda {

enum class WeightStatistic : std::uint8_t { scale, mean };

struct WholeStatistic {
  TensorToSum weights;
  float* result;  // [1]
};

// Of any number of matrices. tiles: scratch for the tensor_sum_tiles() of all weights.
// cudaErrorInvalidValue if one has no weights.
cudaError_t whole_statistics(WeightStatistic which, std::span<const WholeStatistic> matrices,
                             double* tiles, cudaStream_t stream);

struct GroupStatistics {
  const float* w;           // [elements], aligned to 16 bytes
  std::int64_t elements;    // below 2^32
  std::int64_t group_size;  // a multiple of 4 that divides elements; consecutive ones share a scale
  float* results;           // [elements / group_size]
};

// cudaErrorInvalidValue for sizes that do not fit.
cudaError_t group_statistics(WeightStatistic which, const GroupStatistics& op, cudaStream_t stream);

}  // namespace bitnet::cuda
