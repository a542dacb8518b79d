// SPDX-License-Identifier: MIT
// What the operands of norms, of the quantisation of activations and of gated activations must be on every backend; their dtypes are each backend's own. All throw
// ContractError.
#pragma once

#include "core/backend/backend.h"

namespace bitnet {

void check_norm(ConstTensorView x, ConstTensorView gain, ConstTensorView y, ConstTensorView stats);
void check_norm_backward(ConstTensorView x, ConstTensorView gain, ConstTensorView stats,
                         ConstTensorView dy, ConstTensorView dx, ConstTensorView dgain);

// x and its codes, which of the two is made of the other.
void check_quantized(ConstTensorView x, ConstTensorView codes, ConstTensorView act_scale);
void check_norm_quantize(const NormArguments& norm, ConstTensorView x, ConstTensorView codes,
                         ConstTensorView act_scale, ConstTensorView stats);

void check_gated_activation(ConstTensorView gate, ConstTensorView up, ConstTensorView y);
void check_gated_activation_backward(ConstTensorView gate, ConstTensorView up, ConstTensorView dy,
                                     ConstTensorView dgate, ConstTensorView dup);
void check_gated_activation_quantize(ConstTensorView gate, ConstTensorView up,
                                     const NormArguments& norm, ConstTensorView codes,
                                     ConstTensorView act_scale, ConstTensorView stats);
void check_gated_activation_norm_backward(ConstTensorView gate, ConstTensorView up,
                                          const NormArguments& norm, ConstTensorView stats,
                                          ConstTensorView dy, ConstTensorView dgate,
                                          ConstTensorView dup, ConstTensorView dgain);

}  // namespace bitnet
