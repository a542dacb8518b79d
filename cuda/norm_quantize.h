// SPDX-License-Identifier: MIT
// RMSNorm and the per-token int8 quantisation in front of a BitLinear, in one pass over the row:
//   z = (x * inv_rms) * gain,  inv_rms = 1 / sqrt(mean(x²) + eps)
//   codes = round(z * (127 / γ)), ties to even,  act_scale = γ / 127,  γ = max(max |z|, 1e-5)
// A row with a NaN or an infinity in z gets codes 0 and a NaN or infinite scale.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

template <typename Input>  // float or __nv_bfloat16
struct NormQuantize {
  const Input* x;     // [rows, D]
  const float* gain;  // [D], or null for 1
  float eps;
  std::int8_t* codes;     // [rows, D]
  float* act_scale;       // [rows]
  float* inv_rms;         // [rows], or null
  int rows, hidden_size;  // D, a multiple of 8 up to 16384
};

// x, gain and codes are aligned to 16 bytes. cudaErrorInvalidValue for a shape that is not
// supported.
template <typename Input>
cudaError_t norm_quantize(const NormQuantize<Input>& op, cudaStream_t stream);

}  // namespace bitnet::cuda
