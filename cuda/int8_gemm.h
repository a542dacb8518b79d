// SPDX-License-Identifier: MIT
// The product of int8 matrices on tensor cores, brought back to reals as it is written. sum[m, n] =
// sum over k of a[m, k] * b[n, k] is exact in int32 (|sum| <= 128² K, K <= 2^16, or 128 K with a
// ternary operand, K < 2^24); with groups of K so is the sum of each group. For packed weights see
// packed_gemm.h, for gradients gradient_gemm.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/reals.h"

namespace bitnet::cuda {

// What a block computes of y: [128, 128] for large products, [64, 64] where that leaves
// multiprocessors idle. The bits are the same.
enum class Int8GemmTile : std::uint8_t { large, small };

// How sums become y; s is `scale`, r is `row_scale`, g counts groups, ascending.
enum class Int8Scale : std::uint8_t {
  tensor,         // y = addend + (r[m] * s[0]) * sum                          s [1]
  column,         // y = addend + (r[m] * s[n]) * sum                          s [columns]
  column_groups,  // y = addend + f * r[m],  f = fma(s[n, g], sum g, f)  from 0
                  //                                                  s [columns, K / group_size]
};

struct Int8Gemm {
  const std::int8_t *a, *b;  // [rows, K], [columns, K], aligned to 16 bytes
  int rows, columns, depth;  // depth = K, a multiple of 16
  Int8Scale kind;
  const float* scale;
  int group_size;          // with groups: a multiple of 64
  const float* row_scale;  // [rows]
  const float* addend;     // [rows, columns], may be an f32 y; or null for none
  Reals y;                 // [rows, columns]; both aligned to four elements
};

constexpr bool has_groups(Int8Scale kind) { return kind == Int8Scale::column_groups; }

// cudaErrorInvalidValue for a shape that is not supported.
cudaError_t int8_gemm(const Int8Gemm& product, Int8GemmTile tile, cudaStream_t stream);

// The last step alone, from sums [rows, columns] that have been computed elsewhere; for a kind
// without groups and columns that are a multiple of 4. The sums may lie where an f32 y
// does.
cudaError_t write_sums(const Int8Gemm& product, const std::int32_t* sums, cudaStream_t stream);

}  // namespace bitnet::cuda
