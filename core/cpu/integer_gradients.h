// SPDX-License-Identifier: MIT
// Backend::bit_linear_backward on int8.
#pragma once

#include <span>

#include "core/backend/backend.h"
#include "core/base/parallel.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/gradient_kernels.h"
#include "core/cpu/panel_kernels.h"

namespace bitnet::cpu {

// Adds each product's dw. Stores in dx the sum over the products that have a single weight scale,
// and returns whether there is one; those with grouped scales are left to the caller. dx and any dw
// may be empty.
bool integer_gradients(const ThreadTeam& team, const PanelKernels& panels,
                       const GradientKernels& kernels, Scratch& scratch, ConstTensorView codes,
                       ConstTensorView act_scale, std::span<const BitLinearGradient> gradients,
                       TensorView dx);

}  // namespace bitnet::cpu
