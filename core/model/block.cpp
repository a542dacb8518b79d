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

template <typename Branch>
void Block::add_branch(Pass& pass, const Branch& branch, DropoutSite site, ConstTensorView x,
                       TensorView y) const {
  LayerActivations& l = pass.activations.layer(layer_);
  if (!pass.has_dropout()) return branch.forward(pass, l, x, y);
  const TensorView result = pass.rows_of(pass.activations.branch, pass.config.hidden_size);
  branch.forward(pass, l, {}, result);
  pass.backend.add(x, pass.apply_dropout(result, site, layer_, result), y);
}

void Block::forward(Pass& pass, TensorView x, TensorView y) const {
  LayerActivations& l = pass.activations.layer(layer_);
  const TensorView middle = pass.activations.keep != Keep::nothing
                                ? pass.rows_of(l.ffn_residual, pass.config.hidden_size)
                                : y;
  attn_norm_.forward(pass, x, l.attn_norm_stats, l.attn_in);
  add_branch(pass, attention_, DropoutSite::attention, x, middle);
  ffn_norm_.forward(pass, middle, l.ffn_norm_stats, l.ffn_in);
  add_branch(pass, feed_forward_, DropoutSite::feed_forward, middle, y);
}

void Block::backward(Pass& pass) const {
  Activations& a = pass.activations;
  LayerActivations& l = a.layer(layer_);
  const std::int64_t width = pass.config.hidden_size;
  const TensorView d_residual = pass.rows_of(a.d_residual, width),
                   d_branch = pass.rows_of(a.d_branch, width);
  // The last block's activations are still there; the others' are made again, for the same dropout.
  const bool made_again =
      a.keep == Keep::block_inputs && layer_ + 1 < pass.config.num_hidden_layers;
  if (made_again)
    forward(pass, pass.rows_of(a.block_input(layer_), width), pass.rows_of(a.residual, width));

  TensorView dy = pass.apply_dropout(d_residual, DropoutSite::feed_forward, layer_, d_branch);
  ffn_norm_.backward(pass, pass.rows_of(l.ffn_residual, width), l.ffn_norm_stats,
                     feed_forward_.backward(pass, l, dy), d_residual, true);

  dy = pass.apply_dropout(d_residual, DropoutSite::attention, layer_, d_branch);
  attn_norm_.backward(pass, pass.rows_of(a.block_input(layer_), width), l.attn_norm_stats,
                      attention_.backward(pass, l, dy), d_residual, true);
}

}  // namespace bitnet
