// SPDX-License-Identifier: MIT
// What the shapes of a packed matrix and of its scales say together.
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace bitnet {

// The shape [N, K] of a packed matrix and the groups of columns that share a scale. Group g of
// output n has the scale n * groups + g, unless there is a single one.
struct PackedShape {
  std::int64_t outputs, inputs, quarter;  // N, K, N / 4
  std::int64_t groups, group_size;        // of a row; one group when the matrix has a single scale
  bool single_scale;
};

// packed u8 [N / 4, K], weight_scale [1] or [N, groups]; throws ContractError for anything else.
PackedShape packed_shape(ConstTensorView packed, ConstTensorView weight_scale);

}  // namespace bitnet
