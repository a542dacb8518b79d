// SPDX-License-Identifier: MIT
// The norm of each row, its per-token int8 quantisation in front of a BitLinear, or one after the
// other; of a matrix or of a gated activation, in one pass over memory.
//   codes = round(z * (127 / γ)), ties to even,  act_scale = γ / 127,  γ = max(max |z|, 1e-5)
// A row with a NaN or an infinity in z gets codes 0 and a NaN or infinite scale.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/row_operands.h"

namespace bitnet::cuda {

template <typename Rows>  // PlainRows or GatedRows
struct NormQuantize {
  Rows input;
  RowNorm norm;
  float* stats;        // [rows, 2]: mean, inv_std; null without a norm
  Reals y;             // [rows, width]: z itself; or null, and then:
  std::int8_t* codes;  // [rows, width]
  float* act_scale;    // [rows]
  int rows, width;
};

// y may be the input, if of its type. cudaErrorInvalidValue for no rows or no width, or for gate and
// up of two types.
template <typename Rows>
cudaError_t norm_quantize(const NormQuantize<Rows>& op, cudaStream_t stream);

// x = act_scale * codes.
struct Dequantize {
  const std::int8_t* codes;  // [rows, width]
  const float* act_scale;    // [rows]
  float* x;                  // [rows, width]
  int rows, width;
};
cudaError_t dequantize(const Dequantize& op, cudaStream_t stream);

}  // namespace bitnet::cuda
