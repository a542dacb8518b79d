// SPDX-License-Identifier: MIT
// The fp32 gradients of a linear product, for linear_backward and bit_linear_backward.
#pragma once

#include <cstdint>

#include "core/base/parallel.h"
#include "core/tensor/tensor.h"

namespace bitnet::cpu {

struct LinearShape {
  std::int64_t rows, outputs, inputs;  // M, N, K
};

// Checks the gradients' shapes against those of x [rows, K] and w [N, K].
LinearShape check_backward(const Shape& x, const Shape& w, ConstTensorView dy, ConstTensorView dx,
                           ConstTensorView dw);

// dx (+)= dy · w and dw += dyᵀ · x; dx or dw may be null, and then w or x.
void dense_backward(const ThreadTeam& team, const LinearShape& s, const float* x, const float* w,
                    const float* dy, float* dx, bool accumulate_dx, float* dw);

}  // namespace bitnet::cpu
