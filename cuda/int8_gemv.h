// SPDX-License-Identifier: MIT
// The int8 product of an output head for a few tokens, bound by reading the weights:
//   y[t, n] = (act_scale[t] * row_scale[n]) * float(sum over k of codes[t, k] * weights[n, k])
// Also for any other number of tokens where K is no multiple of 16, which the tensor cores need.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

inline constexpr int kInt8GemvTokens = 8;  // that share one reading of the weights

struct Int8Gemv {
  const std::int8_t* codes;    // [tokens, K]
  const float* act_scale;      // [tokens]
  const std::int8_t* weights;  // [N, K], K <= 2^16
  const float* row_scale;      // [N]
  float* y;                    // [tokens, N]
  int tokens, columns, depth;
};

// With K a multiple of 16, codes and weights are aligned to 16 bytes. cudaErrorInvalidValue for a
// shape that is not supported.
cudaError_t int8_gemv(const Int8Gemv& product, cudaStream_t stream);

}  // namespace bitnet::cuda
