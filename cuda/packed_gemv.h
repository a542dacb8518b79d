// SPDX-License-Identifier: MIT
// BitLinear's product of a few tokens with packed 2-bit weights (W2A8), as decoding needs it: bound
// by reading the weights, so each is read once for all tokens.
//   y[t, n] = (act_scale[t] * weight_scale) * float(sum over k of codes[t, k] * trit[n, k])
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

inline constexpr int kPackedGemvTokens = 4;  // at most

struct PackedGemv {
  const std::int8_t* codes;    // [tokens, K]
  const float* act_scale;      // [tokens]
  const std::uint8_t* packed;  // [N / 4, K]: pack_codes() of core/quant
  const float* weight_scale;   // [1]
  float* y;                    // [tokens, N]
  int tokens, columns, depth;  // 1 .. 4; N, a multiple of 4; K, a multiple of 16
};

// codes and packed are aligned to 16 bytes. cudaErrorInvalidValue for a shape that is not
// supported.
cudaError_t packed_gemv(const PackedGemv& product, cudaStream_t stream);

}  // namespace bitnet::cuda
