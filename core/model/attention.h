// SPDX-License-Identifier: MIT
// Causal self-attention with rotary positions and grouped key/value heads (MHA, GQA, MQA):
//   o_proj(SubNorm(softmax(RoPE(q) RoPE(k)ᵀ / sqrt(E)) v)),  q, k, v = projections of one normed
//   input.
#pragma once

#include "core/model/bit_linear.h"

namespace bitnet {

class Attention {
 public:
  Attention(const ModelConfig& config, Parameters& parameters, std::int64_t layer);

  // Reads l.attn_in; residual: [rows, D], added to y, or empty; y: [rows, D].
  void forward(Pass& pass, LayerActivations& l, ConstTensorView residual, TensorView y) const;
  // dy: [rows, D]; returns the gradient by attn_in, [rows, D], in activations.d_input.
  TensorView backward(Pass& pass, LayerActivations& l, ConstTensorView dy) const;

 private:
  AttentionShape shape(const Pass& pass) const;

  std::int64_t layer_, heads_, kv_heads_, head_dim_;
  BitLinear q_proj_, k_proj_, v_proj_, o_proj_;
  LinearInputNorm sub_norm_;
};

}  // namespace bitnet
