// SPDX-License-Identifier: MIT
#include "core/model/attention.h"

namespace bitnet {
namespace {

// Rounds x as a cache of halves does, if the activations ask for it.
void round_to_half(Pass& pass, TensorView x) {
  if (!pass.activations.kv_halves) return;
  const TensorView halves = leading(pass.activations.kv_halves, x.shape());
  pass.backend.convert(x, halves);
  pass.backend.convert(halves, x);
}

std::string prefix(std::int64_t layer) { return fmt::format("model.layers.{}.self_attn.", layer); }

}  // namespace

Attention::Attention(const ModelConfig& config, Parameters& parameters, std::int64_t layer)
    : layer_(layer),
      heads_(config.num_attention_heads),
      kv_heads_(config.kv_heads()),
      head_dim_(config.head_size()),
      q_proj_(parameters.at(prefix(layer) + "q_proj.weight")),
      k_proj_(parameters.at(prefix(layer) + "k_proj.weight")),
      v_proj_(parameters.at(prefix(layer) + "v_proj.weight")),
      o_proj_(parameters.at(prefix(layer) + "o_proj.weight")),
      sub_norm_(config.use_sub_norms, parameters.find(prefix(layer) + "attn_sub_norm.weight"),
                heads_ * head_dim_) {}

AttentionShape Attention::shape(const Pass& pass) const {
  return {.batch = pass.batch,
          .queries = pass.tokens,
          .keys = pass.first_position() + pass.tokens,
          .heads = heads_,
          .kv_heads = kv_heads_,
          .head_dim = head_dim_,
          .first_position = pass.first_position(),
          .capacity = pass.cache == nullptr ? 0 : pass.cache->room()};
}

void Attention::forward(Pass& pass, LayerActivations& l, ConstTensorView residual,
                        TensorView y) const {
  Backend& be = pass.backend;
  const AttentionShape s = shape(pass);
  const std::int64_t kv_width = kv_heads_ * head_dim_;
  TensorView q = pass.rows_of(l.q, heads_ * head_dim_);
  TensorView k = pass.rows_of(l.k, kv_width), v = pass.rows_of(l.v, kv_width);
  BitLinear::forward(pass, l.attn_in, {{q_proj_, q}, {k_proj_, k}, {v_proj_, v}});

  q = q.reshaped({s.batch, s.queries, heads_, head_dim_});
  k = k.reshaped({s.batch, s.queries, kv_heads_, head_dim_});
  v = v.reshaped(k.shape());
  const TensorView out = pass.rows_of(l.attn_out, heads_ * head_dim_);
  if (pass.cache != nullptr) {
    be.cached_attention(s, q, k, v, pass.rope_table, pass.cache->keys(layer_),
                        pass.cache->values(layer_), out.reshaped(q.shape()));
  } else {
    be.rope(q, pass.rope_table, s.first_position, RopeDirection::forward);
    be.rope(k, pass.rope_table, s.first_position, RopeDirection::forward);
    round_to_half(pass, k);
    round_to_half(pass, v);
    const TensorView logsumexp =
        l.logsumexp ? leading(l.logsumexp, {s.batch, heads_, s.queries}) : TensorView();
    be.attention(s, q, k, v, out.reshaped(q.shape()), logsumexp);
  }
  sub_norm_.forward(pass, out, l.attn_sub_stats, l.o_in);
  BitLinear::forward(pass, l.o_in, {{o_proj_, y, residual}});
}

TensorView Attention::backward(Pass& pass, LayerActivations& l, ConstTensorView dy) const {
  Backend& be = pass.backend;
  Activations& a = pass.activations;
  const AttentionShape s = shape(pass);
  const std::int64_t width = heads_ * head_dim_, kv_width = kv_heads_ * head_dim_;
  const Shape q_shape{s.batch, s.queries, heads_, head_dim_},
      kv_shape{s.batch, s.keys, kv_heads_, head_dim_};
  const TensorView out = pass.rows_of(l.attn_out, width);

  const TensorView d_o_in = pass.rows_of(a.d_input, width);
  BitLinear::backward(pass, l.o_in, {{o_proj_, dy}}, d_o_in);
  const TensorView d_out = sub_norm_.backward(pass, out, l.attn_sub_stats, d_o_in,
                                              pass.rows_of(a.d_normed, width), false);

  const TensorView dq = leading(a.d_q, q_shape), dk = leading(a.d_k, kv_shape),
                   dv = leading(a.d_v, kv_shape);
  be.attention_backward(s, leading(l.q, q_shape), leading(l.k, kv_shape), leading(l.v, kv_shape),
                        out.reshaped(q_shape), leading(l.logsumexp, {s.batch, heads_, s.queries}),
                        d_out.reshaped(q_shape), dq, dk, dv);
  be.rope(dq, pass.rope_table, 0, RopeDirection::backward);
  be.rope(dk, pass.rope_table, 0, RopeDirection::backward);

  const TensorView dx = pass.rows_of(a.d_input, pass.config.hidden_size);
  BitLinear::backward(pass, l.attn_in,
                      {{q_proj_, dq.reshaped({pass.rows(), width})},
                       {k_proj_, dk.reshaped({pass.rows(), kv_width})},
                       {v_proj_, dv.reshaped({pass.rows(), kv_width})}},
                      dx);
  return dx;
}

}  // namespace bitnet
