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

// All pointers are aligned to 16 bytes. Each returns cudaErrorInvalidValue for a shape that is not
// supported.

// For the gradient of the input, each row of dy [rows, N]; codes [rows, padded_outputs(N / 4)] in
// the order of unpack_transposed (unpack_codes.h), scale [rows]. columns = N is a multiple of 4.
cudaError_t quantize_gradient_rows(ConstReals dy, int rows, int columns, std::int8_t* codes,
                                   float* scale, cudaStream_t stream);

// For the gradient of the weights, the columns of dy[t, n] * act_scale[t], in stretches of tokens;
// codes [N, padded_tokens(rows)], scale [N, gradient_stretches(rows)].
cudaError_t quantize_gradient_columns(ConstReals dy, const float* act_scale, int rows, int columns,
                                      std::int8_t* codes, float* scale, cudaStream_t stream);

// The other operand: codes [rows, K] to [K, padded_tokens(rows)]. K is a multiple of 16.
cudaError_t transpose_codes(const std::int8_t* codes, int rows, int depth, std::int8_t* transposed,
                            cudaStream_t stream);

}  // namespace bitnet::cuda
