// SPDX-License-Identifier: MIT
#include "core/model/feed_forward.h"

namespace bitnet {
namespace {

std::string prefix(std::int64_t layer) { return fmt::format("model.layers.{}.mlp.", layer); }

}  // namespace

FeedForward::FeedForward(const ModelConfig& config, Parameters& parameters, std::int64_t layer)
    : width_(config.intermediate_size),
      up_proj_(parameters.at(prefix(layer) + "up_proj.weight")),
      down_proj_(parameters.at(prefix(layer) + "down_proj.weight")),
      sub_norm_(config.use_sub_norms, parameters.find(prefix(layer) + "ffn_sub_norm.weight"),
                width_) {
  if (config.gated_mlp) gate_proj_.emplace(parameters.at(prefix(layer) + "gate_proj.weight"));
}

TensorView FeedForward::activate(Pass& pass, LayerActivations& l) const {
  const TensorView up = pass.rows_of(l.up, width_),
                   y = pass.rows_of(pass.activations.hidden_activation, width_);
  if (gate_proj_)
    pass.backend.gated_activation(pass.config.activation(), pass.rows_of(l.gate, width_), up, y);
  else
    pass.backend.gated_activation(pass.config.activation(), up, {}, y);
  return y;
}

void FeedForward::forward(Pass& pass, LayerActivations& l, TensorView y) const {
  if (gate_proj_) gate_proj_->forward(pass, l.ffn_in, pass.rows_of(l.gate, width_));
  up_proj_.forward(pass, l.ffn_in, pass.rows_of(l.up, width_));
  sub_norm_.forward(pass, activate(pass, l), l.ffn_sub_stats, l.down_in);
  down_proj_.forward(pass, l.down_in, y);
}

TensorView FeedForward::backward(Pass& pass, LayerActivations& l, ConstTensorView dy) const {
  Activations& a = pass.activations;
  const Activation activation = pass.config.activation();
  const TensorView up = pass.rows_of(l.up, width_), d_up = pass.rows_of(a.d_up, width_);

  const TensorView d_down_in = pass.rows_of(a.d_input, width_);
  down_proj_.backward(pass, l.down_in, dy, d_down_in, false);
  const TensorView d_hidden = sub_norm_.backward(pass, activate(pass, l), l.ffn_sub_stats,
                                                 d_down_in, pass.rows_of(a.d_normed, width_));

  const TensorView dx = pass.rows_of(a.d_input, pass.config.hidden_size);
  if (gate_proj_) {
    const TensorView gate = pass.rows_of(l.gate, width_), d_gate = pass.rows_of(a.d_gate, width_);
    pass.backend.gated_activation_backward(activation, gate, up, d_hidden, d_gate, d_up);
    gate_proj_->backward(pass, l.ffn_in, d_gate, dx, false);
  } else {
    pass.backend.gated_activation_backward(activation, up, {}, d_hidden, d_up, {});
  }
  up_proj_.backward(pass, l.ffn_in, d_up, dx, gate_proj_.has_value());
  return dx;
}

}  // namespace bitnet
