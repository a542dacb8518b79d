// SPDX-License-Identifier: MIT
// PyTorch's AdamW on many parameters at once:
//   g = gradient * grad_scale,  m += (1 - β1) (g - m),  v = β2 v + (1 - β2) g²
//   parameter = parameter * decay - step_size * m / (sqrt(v) * inv_sqrt_bias2 + eps)
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "core/backend/adamw_factors.h"

namespace bitnet::cuda {

struct AdamW {
  const float* gradient;
  float *parameter, *m, *v;
  std::int64_t count;  // of elements; may be 0
  bool decays;         // else as if factors.decay were 1
};

cudaError_t adamw(const AdamWFactors& factors, std::span<const AdamW> parameters,
                  cudaStream_t stream);

}  // namespace bitnet::cuda
