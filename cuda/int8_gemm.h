// SPDX-License-Identifier: MIT
// BitLinear's product with int8 operands on tensor cores, dequantised as it is written:
//   y[t, n] = (act_scale[t] * weight_scale) * float(sum over k of codes[t, k] * weights[n, k])
// The sum is exact in int32 (|sum| <= 128 K, K < 2^24).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

// What a block computes of y: [128, 128] for large products, [64, 64] where that leaves
// multiprocessors idle.
enum class Int8GemmTile : std::uint8_t { large, small };

template <typename Output>  // float or __nv_bfloat16
struct Int8Gemm {
  const std::int8_t* codes;    // [rows, K]
  const float* act_scale;      // [rows]
  const std::int8_t* weights;  // [columns, K]
  const float* weight_scale;   // [1]
  Output* y;                   // [rows, columns]
  int rows, columns, depth;    // columns a multiple of 4; depth = K, a multiple of 16
};

// Operands are aligned to 16 bytes. cudaErrorInvalidValue for a shape that is not supported.
template <typename Output>
cudaError_t int8_gemm(const Int8Gemm<Output>& product, Int8GemmTile tile, cudaStream_t stream);

}  // namespace bitnet::cuda
