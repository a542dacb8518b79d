// SPDX-License-Identifier: MIT
#include "core/model/activations.h"

#include <algorithm>

namespace bitnet {

Activations::Activations(Backend& backend, const ModelConfig& c, std::int64_t batch_size,
                         std::int64_t token_count, bool keep_for_backward, bool mixed)
    : max_batch(batch_size), max_tokens(token_count), keeps_for_backward(keep_for_backward) {
  BITNET_CHECK(batch_size >= 1 && token_count >= 1,
               "a batch of {} x {} tokens, expected at least 1 x 1", batch_size, token_count);
  const std::int64_t rows = batch_size * token_count;
  const std::int64_t hidden = c.hidden_size, ffn = c.intermediate_size;
  const std::int64_t query = c.num_attention_heads * c.head_size(),
                     kv = c.kv_heads() * c.head_size();
  const std::int64_t widest = std::max({hidden, ffn, query});

  const auto make = [&](Shape shape, DType dtype = DType::f32) {
    Tensor tensor = backend.make_tensor(dtype, shape);
    bytes_ += tensor.bytes();
    return tensor;
  };
  const auto make_input = [&](std::int64_t width) {
    LinearInput input;
    if (c.quantized_activations()) {
      input.codes = make({rows, width}, DType::i8);
      input.act_scale = make({rows});
    }
    if (!c.quantized_activations() || mixed) input.x = make({rows, width});
    return input;
  };

  layers_.resize(static_cast<std::size_t>(keep_for_backward ? c.num_hidden_layers : 1));
  for (LayerActivations& l : layers_) {
    l.attn_norm_stats = make({rows, 2});
    l.attn_in = make_input(hidden);
    l.q = make({rows, query});
    l.k = make({rows, kv});
    l.v = make({rows, kv});
    l.attn_out = make({rows, query});
    l.o_in = make_input(query);
    l.ffn_norm_stats = make({rows, 2});
    l.ffn_in = make_input(hidden);
    if (c.gated_mlp) l.gate = make({rows, ffn});
    l.up = make({rows, ffn});
    l.down_in = make_input(ffn);
    if (c.use_sub_norms) {
      l.attn_sub_stats = make({rows, 2});
      l.ffn_sub_stats = make({rows, 2});
    }
    if (keep_for_backward) {
      l.attn_residual = make({rows, hidden});
      l.ffn_residual = make({rows, hidden});
      l.logsumexp = make({rows, c.num_attention_heads});
    }
  }

  if (mixed) normed = make({rows, widest});
  if (!c.quantized_activations() || mixed) hidden_activation = make({rows, ffn});
  branch = make({rows, hidden});
  residual = make({rows, hidden});
  final_stats = make({rows, 2});
  final_normed = make({rows, hidden});
  logits = make({rows, c.vocab_size});
  if (!keep_for_backward) return;
  d_residual = make({rows, hidden});
  d_branch = make({rows, hidden});
  d_normed = make({rows, std::max(hidden, query)});
  d_input = make({rows, widest});
  if (c.gated_mlp) d_gate = make({rows, ffn});
  d_up = make({rows, ffn});
  d_q = make({rows, query});
  d_k = make({rows, kv});
  d_v = make({rows, kv});
}

}  // namespace bitnet
