// SPDX-License-Identifier: MIT
#include "core/model/bit_linear.h"

#include <array>

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
  if (!has_dropout()) return x;
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
  x = x.reshaped(shape);
  if (pass.mode == ProductMode::integer) {
    const TensorView codes = leading(input.codes, shape),
                     act_scale = leading(input.act_scale, {pass.rows()});
    if (norm_)
      be.norm_quantize(arguments(pass), x, codes, act_scale, stats_of(pass, stats));
    else
      be.quantize_activations(x, codes, act_scale);
    return;
  }
  // A float product reads the normed values themselves, now and in the backward pass; a mixed one
  // reads their mixture with the quantised ones.
  const bool mixture = pass.config.quantized_activations();
  const TensorView product_input = leading(input.x, shape);
  ConstTensorView normed = x;
  if (norm_) {
    const TensorView target = mixture ? leading(pass.activations.normed, shape) : product_input;
    be.norm(pass.config.norm_kind(), x, value_of(gain_),
            static_cast<float>(pass.config.rms_norm_eps), target, stats_of(pass, stats));
    normed = target;
  } else if (!mixture) {
    be.copy(x, product_input);
  }
  if (!mixture) return;
  const TensorView codes = leading(input.codes, shape),
                   act_scale = leading(input.act_scale, {pass.rows()});
  be.quantize_activations(normed, codes, act_scale);
  be.dequantize_activations(codes, act_scale, product_input);
  be.blend(normed, product_input, pass.quantized_amount, product_input);
}

void LinearInputNorm::forward_activation(Pass& pass, ConstTensorView gate, ConstTensorView up,
                                         Tensor& stats, LinearInput& input) const {
  const Activation activation = pass.config.activation();
  if (pass.mode == ProductMode::integer) {
    pass.backend.gated_activation_quantize(
        activation, gate, up, arguments(pass), leading(input.codes, {pass.rows(), width_}),
        leading(input.act_scale, {pass.rows()}), stats_of(pass, stats));
    return;
  }
  const TensorView x = pass.rows_of(pass.activations.hidden_activation, width_);
  pass.backend.gated_activation(activation, gate, up, x);
  forward(pass, x, stats, input);
}

TensorView LinearInputNorm::backward(Pass& pass, ConstTensorView x, Tensor& stats,
                                     TensorView d_input, TensorView dx, bool accumulate_dx) const {
  if (!norm_) return d_input;
  pass.backend.norm_backward(pass.config.norm_kind(), x, value_of(gain_), stats_of(pass, stats),
                             d_input, dx, accumulate_dx, gradient_of(gain_));
  return dx;
}

void LinearInputNorm::backward_activation(Pass& pass, ConstTensorView gate, ConstTensorView up,
                                          Tensor& stats, ConstTensorView d_input, TensorView d_gate,
                                          TensorView d_up) const {
  const Activation activation = pass.config.activation();
  if (norm_)
    pass.backend.gated_activation_norm_backward(activation, gate, up, arguments(pass),
                                                stats_of(pass, stats), d_input, d_gate, d_up,
                                                gradient_of(gain_));
  else
    pass.backend.gated_activation_backward(activation, gate, up, d_input, d_gate, d_up);
}

NormArguments LinearInputNorm::arguments(const Pass& pass) const {
  return {pass.config.norm_kind(), value_of(gain_), static_cast<float>(pass.config.rms_norm_eps)};
}

// [rows, 2], or empty without a norm.
TensorView LinearInputNorm::stats_of(const Pass& pass, Tensor& stats) const {
  return norm_ ? leading(stats, {pass.rows(), 2}) : TensorView();
}

void BitLinear::forward(Pass& pass, LinearInput& input, std::initializer_list<Output> outputs) {
  const Shape shape{pass.rows(), outputs.begin()->projection.inputs()};
  if (pass.mode == ProductMode::integer) {
    std::array<BitLinearProduct, kMaxProjections> products;
    std::size_t count = 0;
    for (const Output& o : outputs) {
      const Parameter& w = *o.projection.weight_;
      products[count++] = {w.packed, w.weight_scale, o.y, o.residual};
    }
    pass.backend.bit_linear(leading(input.codes, shape), leading(input.act_scale, {pass.rows()}),
                            std::span(products.data(), count));
    return;
  }
  for (const Output& o : outputs) {
    const TensorView y = o.residual ? pass.rows_of(pass.activations.branch, o.y.dim(1)) : o.y;
    pass.backend.linear(leading(input.x, shape), float_operand(*o.projection.weight_, pass.mode),
                        y);
    if (o.residual) pass.backend.add(o.residual, y, o.y);
  }
}

void BitLinear::backward(Pass& pass, LinearInput& input, std::initializer_list<Gradient> gradients,
                         TensorView dx) {
  const Shape shape{pass.rows(), gradients.begin()->projection.inputs()};
  if (pass.mode == ProductMode::integer) {
    std::array<BitLinearGradient, kMaxProjections> products;
    std::size_t count = 0;
    for (const Gradient& g : gradients) {
      Parameter& w = *g.projection.weight_;
      products[count++] = {w.packed, w.weight_scale, g.dy, w.gradient};
    }
    pass.backend.bit_linear_backward(
        leading(input.codes, shape), leading(input.act_scale, {pass.rows()}),
        std::span(products.data(), count), pass.gradient_precision, dx);
    return;
  }
  for (const Gradient& g : gradients) {
    Parameter& w = *g.projection.weight_;
    pass.backend.linear_backward(leading(input.x, shape), float_operand(w, pass.mode), g.dy, dx,
                                 &g != gradients.begin(), w.gradient);
  }
}

}  // namespace bitnet
