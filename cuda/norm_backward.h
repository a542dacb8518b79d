// SPDX-License-Identifier: MIT
// The gradients of the norm of each row of a matrix, or of a gated activation, which is computed
// again. With g = dy * gain and h_hat = (h - mean) * inv_std:
//   dh = inv_std * (g - h_hat * mean(g * h_hat) - mean(g)),  without mean(g) for rms
//   dgain += sum over the rows of dy * h_hat
// dgain is summed by stretches of rows, whose number depends on the number of rows alone, and then
// over the stretches: the same bits in every run.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/row_operands.h"

namespace bitnet::cuda {

template <typename Rows>  // PlainRows or GatedRows
struct NormBackward {
  Rows input;
  RowNorm norm;        // rms or layer; eps is not used
  const float* stats;  // [rows, 2]: mean, inv_std
  ConstReals dy;       // [rows, width]
  Reals dx;            // [rows, width]: dh, or, of gated rows, dgate. May be dy, if of its type
  bool accumulate;     // dx += dh, in f32. Not of gated rows
  Reals dup;           // [rows, width]; null without up. May be up
  float* dgain;        // [width], +=; or null
  float* parts;        // scratch [gain_parts(rows), width]; null without dgain
  int rows, width;
};

int gain_parts(int rows);

// cudaErrorInvalidValue for no rows or no width, for accumulation in bf16, or, of gated rows, if not
// all that is f32 or bf16 is of one type.
template <typename Rows>
cudaError_t norm_backward(const NormBackward<Rows>& op, cudaStream_t stream);

}  // namespace bitnet::cuda
