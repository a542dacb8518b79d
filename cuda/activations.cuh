// SPDX-License-Identifier: MIT
// The activations with their derivatives, and rows that are read through them. Every kernel takes
// them from here, so that an activation has the same bits wherever it is computed.
#pragma once

#include "cuda/gpu.h"
#include "cuda/row_operands.h"
#include "cuda/row_vectors.cuh"

namespace bitnet::cuda {

struct ActivationAt {
  float value, derivative;  // what is not used is not computed either
};

BITNET_DEVICE ActivationAt silu_at(float x) {
  const float sigmoid = 1.0f / (1.0f + expf(-x)), value = x * sigmoid;
  return {value, fmaf(value, 1.0f - sigmoid, sigmoid)};
}

BITNET_DEVICE ActivationAt relu2_at(float x) {
  const float positive = x < 0.0f ? 0.0f : x;  // a NaN stays
  return {positive * positive, positive + positive};
}

BITNET_DEVICE ActivationAt gelu_at(float x) {
  constexpr float kInvSqrt2 = 0.707106781186547524f, kInvSqrt2Pi = 0.398942280401432678f;
  const float cdf = fmaf(0.5f, erff(x * kInvSqrt2), 0.5f);
  const float density = expf(-0.5f * (x * x)) * kInvSqrt2Pi;
  return {x * cdf, fmaf(x, density, cdf)};
}

BITNET_DEVICE void activate(RowActivation activation, const Quad& x, ActivationAt (&y)[kQuad]) {
  if (activation == RowActivation::silu) {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) y[i] = silu_at(x[i]);
  } else if (activation == RowActivation::relu2) {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) y[i] = relu2_at(x[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) y[i] = gelu_at(x[i]);
  }
}

// activation(gate) * up
BITNET_DEVICE void gated(RowActivation activation, const Quad& gate, const Quad& up, Quad& to) {
  ActivationAt at_gate[kQuad];
  activate(activation, gate, at_gate);
#pragma unroll
  for (int i = 0; i < kQuad; ++i) to[i] = at_gate[i].value * up[i];
}

template <typename T>
BITNET_DEVICE void load_gated(const GatedRows& rows, std::size_t at, RowPart part, Quad& gate,
                              Quad& up) {
  load_as<T>(rows.gate, at, part, gate);
  if (rows.up.data == nullptr) {
    up[0] = up[1] = up[2] = up[3] = 1.0f;
  } else {
    load_as<T>(rows.up, at, part, up);
  }
}
template <typename T>
BITNET_DEVICE void load_as(const GatedRows& rows, std::size_t at, RowPart part, Quad& to) {
  Quad gate, up;
  load_gated<T>(rows, at, part, gate, up);
  gated(rows.activation, gate, up, to);
}

// From dh, the gradient by activation(gate) * up: dgate and dup.
BITNET_DEVICE void gated_backward(RowActivation activation, const Quad& gate, const Quad& up,
                                  const Quad& dh, Quad& dgate, Quad& dup) {
  ActivationAt at_gate[kQuad];
  activate(activation, gate, at_gate);
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    dgate[i] = dh[i] * up[i] * at_gate[i].derivative;
    dup[i] = dh[i] * at_gate[i].value;
  }
}

}  // namespace bitnet::cuda
