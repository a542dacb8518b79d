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

void FeedForward::forward(Pass& pass, LayerActivations& l, ConstTensorView residual,
                          TensorView y) const {
  const TensorView up = pass.rows_of(l.up, width_);
  if (gate_proj_) {
    const TensorView gate = pass.rows_of(l.gate, width_);
    BitLinear::forward(pass, l.ffn_in, {{*gate_proj_, gate}, {up_proj_, up}});
    sub_norm_.forward_activation(pass, gate, up, l.ffn_sub_stats, l.down_in);
  } else {
    BitLinear::forward(pass, l.ffn_in, {{up_proj_, up}});
    sub_norm_.forward_activation(pass, up, {}, l.ffn_sub_stats, l.down_in);
  }
  BitLinear::forward(pass, l.down_in, {{down_proj_, y, residual}});
}

// activation(gate) * up is made again instead of being kept.
TensorView FeedForward::backward(Pass& pass, LayerActivations& l, ConstTensorView dy) const {
  Activations& a = pass.activations;
  const TensorView d_down_in = pass.rows_of(a.d_input, width_);
  BitLinear::backward(pass, l.down_in, {{down_proj_, dy}}, d_down_in);

  const TensorView up = pass.rows_of(l.up, width_), d_up = pass.rows_of(a.d_up, width_);
  const TensorView dx = pass.rows_of(a.d_input, pass.config.hidden_size);
  if (gate_proj_) {
    const TensorView gate = pass.rows_of(l.gate, width_), d_gate = pass.rows_of(a.d_gate, width_);
    sub_norm_.backward_activation(pass, gate, up, l.ffn_sub_stats, d_down_in, d_gate, d_up);
    BitLinear::backward(pass, l.ffn_in, {{*gate_proj_, d_gate}, {up_proj_, d_up}}, dx);
  } else {
    sub_norm_.backward_activation(pass, up, {}, l.ffn_sub_stats, d_down_in, d_up, {});
    BitLinear::backward(pass, l.ffn_in, {{up_proj_, d_up}}, dx);
  }
  return dx;
}

}  // namespace bitnet
