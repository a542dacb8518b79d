// SPDX-License-Identifier: MIT
// The int8 operands of BitLinear's gradients. Gradients are rounded as activations are,
//   codes = round(v * (127 / γ)), ties to even,  scale = γ / 127,  γ = max(max |v|, 2^-100)
// except that where max |v| is not finite the codes are 0 and the scale is not finite either.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/reals.h"

namespace bitnet::cuda {

// Tokens that share a scale in the gradient of the weights: as many as on the CPU, so that the bits
// are the same.
inline constexpr int kGradientStretch = 256;

// Tokens are padded with zeros to what a tensor core reads at once.
constexpr int padded_tokens(int rows) { return (rows + 15) / 16 * 16; }
constexpr int gradient_stretches(int rows) {
  return (rows + kGradientStretch - 1) / kGradientStretch;
}

// The gradients of several products with the same input, as joined operands.
inline constexpr int kMostGradients = 4;
struct Gradient {
  ConstReals dy;  // [rows, N]
  int columns;    // N
};
struct Gradients {
  int count, rows;
  Gradient gradient[kMostGradients];
};

// All pointers are aligned to 16 bytes. Each returns cudaErrorInvalidValue for a shape that is not
// supported.

// For the gradient of the input, each row of each dy; codes [rows, sum of padded_outputs(N / 4)] in
// the order of unpack_transposed (unpack_codes.h), and scale times weight_scale, [rows, count]. N is a
// multiple of 4.
struct GradientRows {
  Gradients gradients;
  const float* weight_scale[kMostGradients];  // [1] each
  std::int8_t* codes;
  float* scale;
};
cudaError_t quantize_gradient_rows(const GradientRows& op, cudaStream_t stream);

// For the gradients of the weights, the columns of dy[t, n] * act_scale[t], in stretches of tokens;
// codes [sum of N, padded_tokens(rows)], scale [sum of N, gradient_stretches(rows)].
struct GradientColumns {
  Gradients gradients;
  const float* act_scale;  // [rows]
  std::int8_t* codes;
  float* scale;
};
cudaError_t quantize_gradient_columns(const GradientColumns& op, cudaStream_t stream);

// The other operand: codes [rows, K] to [K, padded_tokens(rows)]. K is a multiple of 16.
cudaError_t transpose_codes(const std::int8_t* codes, int rows, int depth, std::int8_t* transposed,
                            cudaStream_t stream);

}  // namespace bitnet::cuda
