// SPDX-License-Identifier: MIT
// What the kernels that work on rows read: a matrix as it lies in memory, or the gated activation
// of two, which is computed as it is read; and the norm of each row.
#pragma once

#include <cstdint>

#include "cuda/reals.h"

namespace bitnet::cuda {

enum class RowActivation : std::uint8_t { silu, relu2, gelu };  // gelu is the exact one: x Φ(x)
enum class RowNormKind : std::uint8_t { none, rms, layer };

struct PlainRows {
  ConstReals x;  // [rows, width]
};

struct GatedRows {
  ConstReals gate;  // [rows, width]
  ConstReals up;    // [rows, width], of the type of gate; or null for 1
  RowActivation activation;
};

// z = (h - mean) * inv_std * gain. rms: mean = 0, inv_std = 1 / sqrt(mean(h²) + eps); layer: the
// mean and variance of the row; none: z = h.
struct RowNorm {
  RowNormKind kind;
  const float* gain;  // [width], or null for 1
  float eps;
};

}  // namespace bitnet::cuda
