// SPDX-License-Identifier: MIT
// A product of bf16 matrices on tensor cores with fp32 sums:
//   y[t, n] = [y[t, n] +] sum over k of a[t, k] * b[n, k]
// The sum over k has the same order whatever the tile, the number of rows and of columns.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/reals.h"

namespace bitnet::cuda {

// What a block computes of y: [128, 128] for large products, [64, 64] where that leaves
// multiprocessors idle, [16, 16] where there are few rows and reading b is all the work.
enum class Bf16GemmTile : std::uint8_t { large, small, few_rows };

struct Bf16Gemm {
  const __nv_bfloat16* a;    // [rows, K]
  const __nv_bfloat16* b;    // [columns, K]
  Reals y;                   // [rows, columns]
  int rows, columns, depth;  // depth = K, a multiple of 8
  bool accumulate = false;   // y += instead of =, rounded once
};

// a and b are aligned to 16 bytes. cudaErrorInvalidValue for a shape that is not supported.
cudaError_t bf16_gemm(const Bf16Gemm& product, Bf16GemmTile tile, cudaStream_t stream);

}  // namespace bitnet::cuda
