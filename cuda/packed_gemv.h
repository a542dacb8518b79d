// SPDX-License-Identifier: MIT
// BitLinear's products of a few tokens with packed 2-bit weights (W2A8), as decoding needs them:
// bound by reading the weights, so each is read once for all tokens. With a single scale
//   y[t, n] = residual[t, n] + (act_scale[t] * weight_scale) * float(sum over k of codes * trit)
// and with groups of K, ascending,
//   y[t, n] = residual[t, n] + act_scale[t] * f,  f = fma(weight_scale[n, g], float(sum g), f)
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/reals.h"

namespace bitnet::cuda {

inline constexpr int kPackedGemvTokens = 8;    // at most
inline constexpr int kPackedGemvProducts = 8;  // at most

struct PackedMatrix {
  const std::uint8_t* packed;  // [N / 4, K]: pack_codes() of core/quant
  const float* weight_scale;   // [1], or [N, groups]
  int columns;                 // N, a multiple of 4
  int groups;                  // that divide K into multiples of 64; 0 for a single scale
  const float* residual;       // [tokens, N], may be an f32 y; or null
  Reals y;                     // [tokens, N]
};

struct PackedGemv {
  const std::int8_t* codes;  // [tokens, K]
  const float* act_scale;    // [tokens]
  int tokens, depth;         // K, a multiple of 64
  int products;
  PackedMatrix matrix[kPackedGemvProducts];
};

// codes and packed are aligned to 16 bytes. cudaErrorInvalidValue for a shape that is not
// supported.
cudaError_t packed_gemv(const PackedGemv& gemv, cudaStream_t stream);

}  // namespace bitnet::cuda
