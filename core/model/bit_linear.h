// SPDX-License-Identifier: MIT
// BitLinear: a linear projection without bias whose operands are quantised (2310.11453,
// 2402.17764), or the float product of the twin. Projections that share an input share its
// normalised, quantised form.
//
// Straight-through estimator: round and clip count as identity in the backward pass, so the
// gradients are those of y = x̂ ŵᵀ taken at the operands of the forward pass:  dx = dy ŵ,  dw += dyᵀ
// x̂.
#pragma once

#include "core/model/parameters.h"
#include "core/model/pass.h"

namespace bitnet {

// A norm and the quantisation of its result: what stands in front of one or more projections.
class LinearInputNorm {
 public:
  // norm: whether there is one (a sub-norm may be switched off); gain: its parameter, or null for a
  // gain-free norm.
  LinearInputNorm(bool norm, Parameter* gain, std::int64_t width)
      : norm_(norm), gain_(gain), width_(width) {}

  // x: [rows, K]; fills stats and `input`.
  void forward(Pass& pass, ConstTensorView x, Tensor& stats, LinearInput& input) const;
  // d_input: gradient of the loss by the quantised input; dx overwritten, gain's gradient +=.
  // Without a norm the gradient passes unchanged, and d_input itself is returned.
  TensorView backward(Pass& pass, ConstTensorView x, Tensor& stats, TensorView d_input,
                      TensorView dx) const;

 private:
  bool norm_;
  Parameter* gain_;
  std::int64_t width_;
};

class BitLinear {
 public:
  explicit BitLinear(Parameter& weight) : weight_(&weight) {}

  std::int64_t inputs() const { return weight_->spec.shape[1]; }

  void forward(Pass& pass, LinearInput& input, TensorView y) const;  // y: [rows, N]
  // dx: [rows, K], overwritten or added to; the weight's gradient +=.
  void backward(Pass& pass, LinearInput& input, ConstTensorView dy, TensorView dx,
                bool accumulate_dx) const;

 private:
  Parameter* weight_;
};

}  // namespace bitnet
