// SPDX-License-Identifier: MIT
#include "core/model/block.h"

namespace bitnet {
namespace {

Parameter* find_norm(Parameters& parameters, std::int64_t layer, const char* name) {
  return parameters.find(fmt::format("model.layers.{}.{}.weight", layer, name));
}

}  // namespace

Block::Block(const ModelConfig& config, Parameters& parameters, std::int64_t layer)
    : layer_(layer),
      attn_norm_(true, find_norm(parameters, layer, "input_layernorm"), config.hidden_size),
      ffn_norm_(true, find_norm(parameters, layer, "post_attention_layernorm"), config.hidden_size),
      attention_(config, parameters, layer),
      feed_forward_(config, parameters, layer) {}

void Block::forward(Pass& pass, TensorView x, TensorView y) const {
  Activations& a = pass.activations;
  LayerActivations& l = a.layer(layer_);
  const std::int64_t width = pass.config.hidden_size;
  const TensorView branch = pass.rows_of(a.branch, width);
  const TensorView middle = a.keeps_for_backward ? pass.rows_of(l.ffn_residual, width) : y;

  attn_norm_.forward(pass, x, l.attn_norm_stats, l.attn_in);
  attention_.forward(pass, l, branch);
  pass.backend.add(x, pass.apply_dropout(branch, DropoutSite::attention, layer_, branch), middle);

  ffn_norm_.forward(pass, middle, l.ffn_norm_stats, l.ffn_in);
  feed_forward_.forward(pass, l, branch);
  pass.backend.add(middle, pass.apply_dropout(branch, DropoutSite::feed_forward, layer_, branch),
                   y);
}

void Block::branch_backward(Pass& pass, const LinearInputNorm& norm, TensorView x, Tensor& stats,
                            TensorView d_normed) const {
  Activations& a = pass.activations;
  const TensorView d_residual = pass.rows_of(a.d_residual, pass.config.hidden_size);
  const TensorView dx =
      norm.backward(pass, x, stats, d_normed, pass.rows_of(a.d_branch, pass.config.hidden_size));
  pass.backend.add(d_residual, dx, d_residual);
}

void Block::backward(Pass& pass) const {
  Activations& a = pass.activations;
  LayerActivations& l = a.layer(layer_);
  const std::int64_t width = pass.config.hidden_size;
  const TensorView d_residual = pass.rows_of(a.d_residual, width),
                   d_branch = pass.rows_of(a.d_branch, width);

  TensorView dy = pass.apply_dropout(d_residual, DropoutSite::feed_forward, layer_, d_branch);
  branch_backward(pass, ffn_norm_, pass.rows_of(l.ffn_residual, width), l.ffn_norm_stats,
                  feed_forward_.backward(pass, l, dy));

  dy = pass.apply_dropout(d_residual, DropoutSite::attention, layer_, d_branch);
  branch_backward(pass, attn_norm_, pass.rows_of(l.attn_residual, width), l.attn_norm_stats,
                  attention_.backward(pass, l, dy));
}

}  // namespace bitnet
