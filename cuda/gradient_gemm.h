// SPDX-License-Identifier: MIT
// The products of BitLinear's int8 gradients on tensor cores. The contraction is cut into groups,
// each with scales of the rows: with int32 sums, and g ascending from the addend (0 without one),
//   y[m, n] = f,  f = fma(scale[m, g], float(sum over k in g of a[m, k] * b[n, k]), f)
// For dx the groups are the outputs of each product, for dw stretches of tokens.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/reals.h"

namespace bitnet::cuda {

// What a block computes of y: [128, 128] ([128, 64] with several groups) for large products, [64, 64]
// where that leaves multiprocessors idle. The bits are the same.
enum class GradientGemmTile : std::uint8_t { large, small };

inline constexpr int kGradientParts = 4;       // at most
inline constexpr int kGradientGroupStep = 64;  // divides every group's first k

// Rows of the result that lie together, up to those of the next part.
struct GradientPart {
  int first_row;
  Reals y;              // [rows of the part, columns]
  const float* addend;  // the same shape, may be an f32 y; or null
};

struct GradientGemm {
  const std::int8_t *a, *b;  // [rows, K], [columns, K], aligned to 16 bytes
  int rows, columns, depth;  // depth = K, a multiple of 16
  const float* scale;        // [rows, groups]
  int groups;
  int group_size;  // of all groups but the last, or 0: they are of different sizes
  int group_ends[kGradientParts - 1];  // of all but the last, for different sizes
  int parts;
  GradientPart part[kGradientParts];  // ascending; the first at row 0
};

// cudaErrorInvalidValue for a shape that is not supported.
cudaError_t gradient_gemm(const GradientGemm& product, GradientGemmTile tile, cudaStream_t stream);

}  // namespace bitnet::cuda
