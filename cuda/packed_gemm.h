// SPDX-License-Identifier: MIT
// BitLinear's products of many tokens with packed 2-bit weights (W2A8) on tensor cores; for a few
// tokens see packed_gemv.h, whose single-scale formula this is:
//   y[t, n] = residual[t, n] + (act_scale[t] * weight_scale) * float(sum over k of codes * trit)
// The weights are unpacked in registers, on their way to the tensor cores.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/packed_gemv.h"

namespace bitnet::cuda {

// What a block computes of a y: 64 tokens by four times 32 columns, or by four times 16 where that
// leaves multiprocessors idle. The bits are the same.
enum class PackedGemmTile : std::uint8_t { large, small };

inline constexpr int kPackedGemmDepth = 1 << 20;  // of K at most: |4 * sum of codes| <= 1024 K

// All matrices in one launch; groups must be 0, K a multiple of 16, any number of tokens.
// cudaErrorInvalidValue for a shape that is not supported.
cudaError_t packed_gemm(const PackedGemv& products, PackedGemmTile tile, cudaStream_t stream);

}  // namespace bitnet::cuda
