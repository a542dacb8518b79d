// SPDX-License-Identifier: MIT
// Packed ternary weights as int8, for products on tensor cores.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

// trits[n, k] of packed [N / 4, K]: pack_codes() of core/quant. K is a multiple of 16; both are
// aligned to 16 bytes. cudaErrorInvalidValue for a shape that is not supported.
cudaError_t unpack_codes(const std::uint8_t* packed, int quarter, int depth, std::int8_t* trits,
                         cudaStream_t stream);

// The transpose, for products that run over N; of several matrices, whose rows are joined. Element n
// of a matrix stands at 4 (n % (N / 4)) + n / (N / 4) of its part of a row, as packed bytes have it;
// quantize_gradient_rows (gradient_codes.h) orders alike. Each part has padded_outputs(N / 4)
// elements, zeros at the end.
constexpr int padded_outputs(int quarter) { return (quarter + 15) / 16 * 64; }

inline constexpr int kMostTransposed = 4;  // matrices
struct TransposedCodes {
  int matrices, depth;  // depth = K
  const std::uint8_t* packed[kMostTransposed];
  int quarter[kMostTransposed];
  std::int8_t* trits;  // [K, sum of the padded outputs]
};
cudaError_t unpack_transposed(const TransposedCodes& op, cudaStream_t stream);

}  // namespace bitnet::cuda
