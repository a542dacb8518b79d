// SPDX-License-Identifier: MIT
// Scale and mean of weights, for all of them or for each group of columns that has its own:
//   absmean scale  max(mean |w|, 1e-5)           mean  mean of w (binary weights)
// with the sums of core/quant/ternary.h, bit for bit. A NaN or an infinity shows in both.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

struct WeightStatistics {
  const float* w;           // [elements]
  std::int64_t elements;    // below 2^32
  std::int64_t group_size;  // divides elements; consecutive ones that share a scale
  float* scales;            // [elements / group_size], or null: not wanted
  float* means;             // the same
  double* tile_sums;        // scratch for statistics_tiles() doubles
};

std::int64_t statistics_tiles(std::int64_t elements, std::int64_t group_size);

// cudaErrorInvalidValue for sizes that do not fit.
cudaError_t weight_statistics(const WeightStatistics& op, cudaStream_t stream);

}  // namespace bitnet::cuda
