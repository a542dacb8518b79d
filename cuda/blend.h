// SPDX-License-Identifier: MIT
// The quantisation warm-up's mixture of weights and quantised weights.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

struct Blend {
  const float *x, *quantized;
  float amount;
  float* out;  // x + amount * (quantized - x); may be x or quantized
  std::int64_t count;
};

// cudaErrorInvalidValue for no elements.
cudaError_t blend(const Blend& op, cudaStream_t stream);

}  // namespace bitnet::cuda
