// SPDX-License-Identifier: MIT
#include "core/backend/row_checks.h"

#include "core/backend/element_checks.h"

namespace bitnet {
namespace {

// What every norm reads, and its statistics.
void check_normed(ConstTensorView x, ConstTensorView gain, ConstTensorView stats) {
  BITNET_CHECK(x.shape().rank() == 2 && x.dim(1) >= 1, "a norm's input is {}, expected [rows, D]",
               x.shape().to_string());
  BITNET_CHECK(stats.shape() == (Shape{x.dim(0), 2}), "a norm of {} got stats {}, expected [{}, 2]",
               x.shape().to_string(), stats.shape().to_string(), x.dim(0));
  BITNET_CHECK(!gain || gain.elements() == x.dim(1),
               "a norm of {} has a gain of {} elements, expected {}", x.shape().to_string(),
               gain.elements(), x.dim(1));
}

void check_gain_gradient(ConstTensorView x, ConstTensorView dgain) {
  BITNET_CHECK(!dgain || dgain.elements() == x.dim(1), "dgain has {} elements, expected {}",
               dgain.elements(), x.dim(1));
}

void check_gated_gradients(const char* operation, ConstTensorView gate, ConstTensorView up,
                           ConstTensorView dy, ConstTensorView dgate, ConstTensorView dup) {
  BITNET_CHECK(static_cast<bool>(up) == static_cast<bool>(dup),
               "{} needs both of up and dup, or none", operation);
  check_same_size(operation, {gate, up ? up : gate, dy, dgate, dup ? dup : gate});
}

}  // namespace

void check_norm(ConstTensorView x, ConstTensorView gain, ConstTensorView y, ConstTensorView stats) {
  check_normed(x, gain, stats);
  BITNET_CHECK(y.shape() == x.shape(), "a norm of {} got {} for its result", x.shape().to_string(),
               y.shape().to_string());
}

void check_norm_backward(ConstTensorView x, ConstTensorView gain, ConstTensorView stats,
                         ConstTensorView dy, ConstTensorView dx, ConstTensorView dgain) {
  check_normed(x, gain, stats);
  BITNET_CHECK(dy.shape() == x.shape() && dx.shape() == x.shape(),
               "dy is {} and dx {}, expected the shape of x, {}", dy.shape().to_string(),
               dx.shape().to_string(), x.shape().to_string());
  check_gain_gradient(x, dgain);
}

void check_quantized(ConstTensorView x, ConstTensorView codes, ConstTensorView act_scale) {
  BITNET_CHECK(
      x.shape().rank() == 2 && codes.shape() == x.shape() && act_scale.elements() == x.dim(0),
      "activations {}, codes {}, act_scale {}: expected [rows, K], [rows, K], [rows]",
      x.shape().to_string(), codes.shape().to_string(), act_scale.shape().to_string());
}

void check_norm_quantize(const NormArguments& norm, ConstTensorView x, ConstTensorView codes,
                         ConstTensorView act_scale, ConstTensorView stats) {
  check_normed(x, norm.gain, stats);
  check_quantized(x, codes, act_scale);
}

void check_gated_activation(ConstTensorView gate, ConstTensorView up, ConstTensorView y) {
  check_same_size("gated_activation", {gate, up ? up : gate, y});
}

void check_gated_activation_backward(ConstTensorView gate, ConstTensorView up, ConstTensorView dy,
                                     ConstTensorView dgate, ConstTensorView dup) {
  check_gated_gradients("gated_activation_backward", gate, up, dy, dgate, dup);
}

void check_gated_activation_quantize(ConstTensorView gate, ConstTensorView up,
                                     const NormArguments& norm, ConstTensorView codes,
                                     ConstTensorView act_scale, ConstTensorView stats) {
  check_quantized(gate, codes, act_scale);
  check_same_size("gated_activation_quantize", {gate, up ? up : gate});
  if (stats) check_normed(gate, norm.gain, stats);
}

void check_gated_activation_norm_backward(ConstTensorView gate, ConstTensorView up,
                                          const NormArguments& norm, ConstTensorView stats,
                                          ConstTensorView dy, ConstTensorView dgate,
                                          ConstTensorView dup, ConstTensorView dgain) {
  check_normed(gate, norm.gain, stats);
  check_gated_gradients("gated_activation_norm_backward", gate, up, dy, dgate, dup);
  check_gain_gradient(gate, dgain);
}

}  // namespace bitnet
