// SPDX-License-Identifier: MIT
// BitLinear: a linear projection without bias whose operands are quantised (2310.11453,
// 2402.17764), or the float product of the twin. Projections that share an input share its
// normalised, quantised form.
//
// Straight-through estimator: round and clip count as identity in the backward pass, so the
// gradients are those of y = x̂ ŵᵀ taken at the operands of the forward pass:  dx = dy ŵ,  dw += dyᵀ
// x̂.
#pragma once

#include <initializer_list>

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
  // The same of x = activation(gate) * up, [rows, K]; `up` may be empty.
  void forward_activation(Pass& pass, ConstTensorView gate, ConstTensorView up, Tensor& stats,
                          LinearInput& input) const;
  // d_input: gradient of the loss by the quantised input; dx overwritten or added to, gain's
  // gradient +=. Without a norm the gradient passes unchanged, and d_input itself is returned.
  TensorView backward(Pass& pass, ConstTensorView x, Tensor& stats, TensorView d_input,
                      TensorView dx, bool accumulate_dx) const;
  // The gradients by gate and up; `d_up` empty with `up`.
  void backward_activation(Pass& pass, ConstTensorView gate, ConstTensorView up, Tensor& stats,
                           ConstTensorView d_input, TensorView d_gate, TensorView d_up) const;

 private:
  NormArguments arguments(const Pass& pass) const;
  TensorView stats_of(const Pass& pass, Tensor& stats) const;

  bool norm_;
  Parameter* gain_;
  std::int64_t width_;
};

class BitLinear {
 public:
  explicit BitLinear(Parameter& weight) : weight_(&weight) {}

  // One of the projections of a shared input.
  struct Output {
    const BitLinear& projection;
    TensorView y;                   // [rows, N]
    ConstTensorView residual = {};  // [rows, N], added to y; or empty. y may be residual.
  };
  struct Gradient {
    const BitLinear& projection;
    ConstTensorView dy;  // [rows, N]
  };
  static constexpr std::size_t kMaxProjections = 3;  // of one input: q, k and v

  static void forward(Pass& pass, LinearInput& input, std::initializer_list<Output> outputs);
  // dx: [rows, K], overwritten with the sum over the projections; the weights' gradients +=.
  static void backward(Pass& pass, LinearInput& input, std::initializer_list<Gradient> gradients,
                       TensorView dx);

 private:
  std::int64_t inputs() const { return weight_->spec.shape[1]; }

  Parameter* weight_;
};

}  // namespace bitnet
