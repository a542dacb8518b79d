// SPDX-License-Identifier: MIT
#include "core/backend/weight_checks.h"

namespace bitnet {

PackedShape check_weights(ConstTensorView w, ConstTensorView packed, ConstTensorView weight_scale) {
  const PackedShape shape = packed_shape(packed, weight_scale);
  BITNET_CHECK(w.shape() == (Shape{shape.outputs, shape.inputs}),
               "weights {} and packed weights {} do not belong together, expected [{}, {}]",
               w.shape().to_string(), packed.shape().to_string(), shape.outputs, shape.inputs);
  return shape;
}

PackedShape check_quantize_weights(const WeightQuantizer& q, ConstTensorView w,
                                   ConstTensorView packed, ConstTensorView weight_scale,
                                   ConstTensorView flips) {
  BITNET_CHECK(q.kind != LinearKind::float32, "a float linear layer has no codes");
  const PackedShape shape = check_weights(w, packed, weight_scale);
  BITNET_CHECK(shape.single_scale == (q.group_size == 0) &&
                   (shape.single_scale || shape.group_size == q.group_size),
               "{} scales do not belong to [{}, {}] weights in groups of {} columns",
               weight_scale.elements(), shape.outputs, shape.inputs, q.group_size);
  BITNET_CHECK(!flips || flips.elements() == 1, "flips {}, expected [1]",
               flips.shape().to_string());
  return shape;
}

}  // namespace bitnet
