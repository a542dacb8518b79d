// SPDX-License-Identifier: MIT
#include "core/model/activations.h"

#include <algorithm>

namespace bitnet {

Activations::Activations(Backend& backend, const ModelConfig& c, std::int64_t batch_size,
                         std::int64_t token_count, Keep keep_for_backward, bool mixed, DType act,
                         DType kv_cache)
    : max_batch(batch_size), max_tokens(token_count), keep(keep_for_backward) {
  BITNET_CHECK(batch_size >= 1 && token_count >= 1,
               "a batch of {} x {} tokens, expected at least 1 x 1", batch_size, token_count);
  const std::int64_t rows = batch_size * token_count;
  const std::int64_t hidden = c.hidden_size, ffn = c.intermediate_size;
  const std::int64_t query = c.num_attention_heads * c.head_size(),
                     kv = c.kv_heads() * c.head_size();
  const std::int64_t widest = std::max({hidden, ffn, query});

  BITNET_CHECK(!mixed || act == DType::f32, "the quantisation warm-up needs activations in f32");
  const bool rounds = kv_cache == DType::f16;
  BITNET_CHECK(kv_cache == DType::f32 || (rounds && keep == Keep::nothing && act == DType::f32),
               "keys and values rounded to {}: expected f32, or f16 of f32 without a backward pass",
               to_string(kv_cache));
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
    if (!c.quantized_activations() || mixed) input.x = make({rows, width}, act);
    return input;
  };

  layers_.resize(static_cast<std::size_t>(keep == Keep::everything ? c.num_hidden_layers : 1));
  for (LayerActivations& l : layers_) {
    l.attn_norm_stats = make({rows, 2});
    l.attn_in = make_input(hidden);
    l.q = make({rows, query}, act);
    l.k = make({rows, kv}, act);
    l.v = make({rows, kv}, act);
    l.attn_out = make({rows, query}, act);
    l.o_in = make_input(query);
    l.ffn_norm_stats = make({rows, 2});
    l.ffn_in = make_input(hidden);
    if (c.gated_mlp) l.gate = make({rows, ffn}, act);
    l.up = make({rows, ffn}, act);
    l.down_in = make_input(ffn);
    if (c.use_sub_norms) {
      l.attn_sub_stats = make({rows, 2});
      l.ffn_sub_stats = make({rows, 2});
    }
    if (keep != Keep::nothing) {
      l.ffn_residual = make({rows, hidden});
      l.logsumexp = make({rows, c.num_attention_heads});
    }
  }

  if (mixed) normed = make({rows, widest});
  if (!c.quantized_activations() || mixed) hidden_activation = make({rows, ffn}, act);
  branch = make({rows, hidden});
  residual = make({rows, hidden});
  final_stats = make({rows, 2});
  final_normed = make({rows, hidden}, act);
  logits = make({rows, c.vocab_size});
  if (rounds) kv_halves = make({rows, kv}, DType::f16);
  if (keep == Keep::nothing) return;
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer)
    block_inputs_.push_back(make({rows, hidden}));
  d_residual = make({rows, hidden});
  d_branch = make({rows, hidden});
  d_normed = make({rows, std::max(hidden, query)}, act);
  d_input = make({rows, widest}, act);
  if (c.gated_mlp) d_gate = make({rows, ffn}, act);
  d_up = make({rows, ffn}, act);
  d_q = make({rows, query}, act);
  d_k = make({rows, kv}, act);
  d_v = make({rows, kv}, act);
}

}  // namespace bitnet
