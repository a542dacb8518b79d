// SPDX-License-Identifier: MIT
// h = activation(gate) * up, element by element, and its gradients:
//   dgate = (dh * up) * activation'(gate),  dup = dh * activation(gate)
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/row_operands.h"

namespace bitnet::cuda {

// All activations and gradients of one call are of one type.
struct GatedActivation {
  GatedRows input;
  Reals h;
  std::int64_t count;
};

struct GatedActivationBackward {
  GatedRows input;
  ConstReals dh;
  Reals dgate;  // may be dh
  Reals dup;    // may be up; null without up
  std::int64_t count;
};

// cudaErrorInvalidValue for no elements, or for more than one type.
cudaError_t gated_activation(const GatedActivation& op, cudaStream_t stream);
cudaError_t gated_activation_backward(const GatedActivationBackward& op, cudaStream_t stream);

}  // namespace bitnet::cuda
