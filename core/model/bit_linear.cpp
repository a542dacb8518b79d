// SPDX-License-Identifier: MIT
#include "core/model/bit_linear.h"

namespace bitnet {
namespace {

ConstTensorView value_of(const Parameter* gain) {
  return gain == nullptr ? ConstTensorView() : gain->value;
}

TensorView gradient_of(Parameter* gain) {
  return gain == nullptr ? TensorView() : gain->gradient.view();
}

// The weight as a float product takes it.
ConstTensorView float_operand(const Parameter& weight, ProductMode mode) {
  return mode == ProductMode::mixed ? weight.operand : weight.value;
}

}  // namespace

TensorView Pass::apply_dropout(TensorView x, DropoutSite site, std::int64_t layer,
                               TensorView y) const {
  if (dropout == nullptr || config.dropout == 0) return x;
  const std::uint64_t place =
      static_cast<std::uint64_t>(layer) * 4 + static_cast<std::uint64_t>(site);
  // Each place owns 2^44 numbers: more than the elements of a step.
  const std::uint64_t first =
      (place << 44) + dropout->first_token * static_cast<std::uint64_t>(config.hidden_size);
  backend.dropout(x, config.dropout,
                  RandomStream{dropout->seed, RandomPurpose::dropout, dropout->step}, first, y);
  return y;
}

void LinearInputNorm::forward(Pass& pass, ConstTensorView x, Tensor& stats,
                              LinearInput& input) const {
  Backend& be = pass.backend;
  const Shape shape{pass.rows(), width_};
  // A float product reads the normed values themselves, now and in the backward pass; otherwise
  // they are scratch.
  const bool keep = !pass.config.quantized_activations();
  ConstTensorView normed = x;
  if (norm_) {
    const TensorView target = leading(keep ? input.x : pass.activations.normed, shape);
    be.norm(pass.config.norm_kind(), x, value_of(gain_),
            static_cast<float>(pass.config.rms_norm_eps), target, leading(stats, {pass.rows(), 2}));
    normed = target;
  } else if (keep) {
    be.copy(x.reshaped(shape), leading(input.x, shape));
  }
  if (keep) return;
  const TensorView codes = leading(input.codes, shape),
                   act_scale = leading(input.act_scale, {pass.rows()});
  be.quantize_activations(normed.reshaped(shape), codes, act_scale);
  if (pass.mode == ProductMode::mixed) {
    const TensorView mixture = leading(input.x, shape);
    be.dequantize_activations(codes, act_scale, mixture);
    be.blend(normed.reshaped(shape), mixture, pass.quantized_amount, mixture);
  }
}

TensorView LinearInputNorm::backward(Pass& pass, ConstTensorView x, Tensor& stats,
                                     TensorView d_input, TensorView dx) const {
  if (!norm_) return d_input;
  pass.backend.norm_backward(pass.config.norm_kind(), x, value_of(gain_),
                             leading(stats, {pass.rows(), 2}), d_input, dx, gradient_of(gain_));
  return dx;
}

void BitLinear::forward(Pass& pass, LinearInput& input, TensorView y) const {
  const Shape shape{pass.rows(), inputs()};
  if (pass.mode == ProductMode::integer) {
    pass.backend.bit_linear(leading(input.codes, shape), leading(input.act_scale, {pass.rows()}),
                            weight_->packed, weight_->weight_scale, y);
  } else {
    pass.backend.linear(leading(input.x, shape), float_operand(*weight_, pass.mode), y);
  }
}

void BitLinear::backward(Pass& pass, LinearInput& input, ConstTensorView dy, TensorView dx,
                         bool accumulate_dx) const {
  const Shape shape{pass.rows(), inputs()};
  if (pass.mode == ProductMode::integer) {
    pass.backend.bit_linear_backward(
        leading(input.codes, shape), leading(input.act_scale, {pass.rows()}), weight_->packed,
        weight_->weight_scale, dy, dx, accumulate_dx, weight_->gradient);
  } else {
    pass.backend.linear_backward(leading(input.x, shape), float_operand(*weight_, pass.mode), dy,
                                 dx, accumulate_dx, weight_->gradient);
  }
}

}  // namespace bitnet
