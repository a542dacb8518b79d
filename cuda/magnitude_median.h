// SPDX-License-Identifier: MIT
// The absmedian scale: max(lower median of |w|, 1e-5), exact, for all weights or for each group of
// columns. The lower median is an element of |w|. A NaN or an infinity anywhere becomes the scale.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

struct MagnitudeMedian {
  const float* w;           // [elements], aligned to 16 bytes
  std::int64_t elements;    // below 2^32, a multiple of 4
  std::int64_t group_size;  // divides elements; consecutive ones that share a scale
  float* scales;            // [elements / group_size]
  std::uint32_t* counts;    // scratch for kMedianCounts, used when there is one group
};

inline constexpr std::int64_t kMedianCounts = 3 * 2048 + 4;

// cudaErrorInvalidValue for sizes that do not fit.
cudaError_t magnitude_median(const MagnitudeMedian& op, cudaStream_t stream);

}  // namespace bitnet::cuda
