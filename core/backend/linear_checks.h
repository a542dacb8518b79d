// SPDX-License-Identifier: MIT
// What the operands of the products of floats and of the int8 head must be on every backend. All throw ContractError.
#pragma once

#include "core/tensor/tensor.h"

namespace bitnet {

// x [rows, K], w [N, K], y [rows, N].
void check_linear(const Shape& x, const Shape& w, ConstTensorView y);
// Also of the gradients of a BitLinear, whose x and w are not stored.
void check_linear_backward(const Shape& x, const Shape& w, ConstTensorView dy, ConstTensorView dx,
                           ConstTensorView dw);

void check_int8_linear(ConstTensorView codes, ConstTensorView act_scale, ConstTensorView weights,
                       ConstTensorView row_scale, ConstTensorView y);

}  // namespace bitnet
