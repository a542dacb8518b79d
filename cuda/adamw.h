// SPDX-License-Identifier: MIT
// PyTorch's AdamW on one parameter:
//   g = gradient * grad_scale,  m += (1 - β1) (g - m),  v = β2 v + (1 - β2) g²
//   parameter = parameter * decay - step_size * m / (sqrt(v) * inv_sqrt_bias2 + eps)
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/backend/adamw_factors.h"

namespace bitnet::cuda {

struct AdamW {
  AdamWFactors factors;
  const float* gradient;
  float *parameter, *m, *v;
  std::int64_t count;
};

// cudaErrorInvalidValue for no elements.
cudaError_t adamw(const AdamW& op, cudaStream_t stream);

}  // namespace bitnet::cuda
