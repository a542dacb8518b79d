// SPDX-License-Identifier: MIT
#include "core/backend/packed_shape.h"

namespace bitnet {

PackedShape packed_shape(ConstTensorView packed, ConstTensorView weight_scale) {
  BITNET_CHECK(packed.dtype() == DType::u8 && packed.shape().rank() == 2 && packed.dim(0) >= 1 &&
                   packed.dim(1) >= 64 && packed.dim(1) % 64 == 0,
               "packed weights are {} {}, expected u8 [N / 4, K], not empty, with K a multiple of "
               "64",
               to_string(packed.dtype()), packed.shape().to_string());
  const std::int64_t outputs = packed.dim(0) * 4, inputs = packed.dim(1);
  if (weight_scale.shape() == Shape{1}) return {outputs, inputs, outputs / 4, 1, inputs, true};
  const bool per_row = weight_scale.shape().rank() == 2 && weight_scale.dim(0) == outputs;
  const std::int64_t groups = per_row ? weight_scale.dim(1) : 0;
  BITNET_CHECK(
      groups >= 1 && inputs % (groups * 64) == 0,
      "weight scales {} for [{}, {}] weights, expected [1] or [N, groups] with groups of a "
      "multiple of 64 columns",
      weight_scale.shape().to_string(), outputs, inputs);
  return {outputs, inputs, outputs / 4, groups, inputs / groups, false};
}

}  // namespace bitnet
