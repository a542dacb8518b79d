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

// The transpose, for products that run over N. Element n of a row stands at 4 (n % (N / 4)) +
// n / (N / 4), as packed bytes have it; quantize_gradient_rows (gradient_codes.h) orders alike. A
// row has padded_outputs(N / 4) elements, zeros at the end.
constexpr int padded_outputs(int quarter) { return (quarter + 3) / 4 * 16; }
cudaError_t unpack_transposed(const std::uint8_t* packed, int quarter, int depth,
                              std::int8_t* trits, cudaStream_t stream);

}  // namespace bitnet::cuda
