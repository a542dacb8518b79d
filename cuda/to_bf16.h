// SPDX-License-Identifier: MIT
// Operands of bf16 products, rounded to nearest even: matrices as they are and transposed, each
// line padded with zeros to a multiple of 8 elements (16 bytes), as bf16_gemm and cuBLASLt want the
// contraction.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/reals.h"

namespace bitnet::cuda {

inline constexpr std::int64_t kBf16Padding = 8;
constexpr std::int64_t bf16_padded(std::int64_t elements) {
  return (elements + kBf16Padding - 1) / kBf16Padding * kBf16Padding;
}

// Where to: aligned to 16 bytes, `pitch` elements from line to line (a multiple of 8), so that the
// lines of several matrices can be joined. Without address: nowhere.
struct Bf16Lines {
  __nv_bfloat16* lines = nullptr;
  std::int64_t pitch = 0;
};

struct RealsToBf16 {
  ConstReals x = {};                 // [rows, columns]
  int rows = 0, columns = 0;         // at least 1
  Bf16Lines plain = {};              // [rows, padded columns] = scale * x
  Bf16Lines transposed = {};         // [columns, padded rows] = row_scale[row] * x
  const float* scale = nullptr;      // [1], or 1
  const float* row_scale = nullptr;  // [rows], or all 1
};
cudaError_t to_bf16(const RealsToBf16& op, cudaStream_t stream);

// Exact: codes of int8 are numbers of bf16.
struct CodesToBf16 {
  const std::int8_t* codes = nullptr;  // [rows, columns], aligned to 4 bytes
  int rows = 0, columns = 0;           // at least 1; columns a multiple of 4
  Bf16Lines transposed = {};           // [columns, padded rows]
};
cudaError_t to_bf16(const CodesToBf16& op, cudaStream_t stream);

// Packed weights as pack_codes() of core/quant packs them. Exact without scales.
struct TernaryToBf16 {
  const std::uint8_t* packed = nullptr;  // [rows / 4, columns], aligned to 4 bytes
  const float* scale = nullptr;          // [rows, columns / group_size], or all 1
  int group_size = 0;                    // where there are scales: a multiple of 4
  int rows = 0, columns = 0;             // at least 4, multiples of 4
  Bf16Lines transposed = {};             // [columns, padded rows] = scale * trit
};
cudaError_t to_bf16(const TernaryToBf16& op, cudaStream_t stream);

}  // namespace bitnet::cuda
