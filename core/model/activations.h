// SPDX-License-Identifier: MIT
// Every buffer of a forward and backward pass, allocated once for a largest batch. What a layer
// must keep for its backward is separate from the scratch that all layers share.
#pragma once

#include <vector>

#include "core/backend/backend.h"
#include "core/model/model_config.h"

namespace bitnet {

// The first shape.elements() elements of a buffer under another shape: buffers are allocated for
// the largest batch.
inline TensorView leading(Tensor& buffer, Shape shape) {
  BITNET_CHECK(shape.elements() <= buffer.elements(), "a buffer of {} is too small for {}",
               buffer.shape().to_string(), shape.to_string());
  return {buffer.view().raw(), buffer.dtype(), shape};
}

// The input of one or more projections, as the product takes it: codes and scales where activations
// are quantised, floats where they are not, or (quantisation warm-up) not wholly.
struct LinearInput {
  Tensor codes;      // i8 [rows, K]
  Tensor act_scale;  // [rows]
  Tensor x;          // f32 [rows, K]
};

struct LayerActivations {
  Tensor attn_residual;    // [rows, D] the block's input; both residuals are kept for the backward
                           // pass only
  Tensor attn_norm_stats;  // [rows, 2]
  LinearInput attn_in;     // K = D
  Tensor q, k, v;          // [rows, H * E], [rows, G * E] twice; q and k after RoPE
  Tensor attn_out;         // [rows, H * E], before the sub-norm
  Tensor logsumexp;        // [B, H, T], kept for the backward pass only
  Tensor attn_sub_stats;   // [rows, 2]
  LinearInput o_in;        // K = H * E
  Tensor ffn_residual;     // [rows, D]
  Tensor ffn_norm_stats;   // [rows, 2]
  LinearInput ffn_in;      // K = D
  Tensor gate, up;         // [rows, F]; gate is empty in a feed-forward without gate
  Tensor ffn_sub_stats;    // [rows, 2]
  LinearInput down_in;     // K = F
};

// Identifies the dropout masks of one forward pass and its backward.
struct DropoutState {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;  // optimizer step
  std::uint64_t first_token =
      0;  // index within the step of the batch's first token: micro-batch * B * T
};

class Activations {
 public:
  // For up to `batch` sequences of up to `tokens` tokens. keep_for_backward: one LayerActivations
  // per layer and gradient scratch; else all layers share one. mixed: also the float inputs that
  // the quantisation warm-up needs.
  Activations(Backend& backend, const ModelConfig& config, std::int64_t batch, std::int64_t tokens,
              bool keep_for_backward, bool mixed = false);

  LayerActivations& layer(std::int64_t index) {
    return layers_[keeps_for_backward ? static_cast<std::size_t>(index) : 0];
  }
  std::int64_t bytes() const { return bytes_; }

  std::int64_t max_batch, max_tokens;
  bool keeps_for_backward;

  // Shared by all layers.
  Tensor normed;             // [rows, max(D, H * E, F)], only with `mixed`
  Tensor hidden_activation;  // [rows, F] activation(gate) * up, where products are in floats
  Tensor branch;             // [rows, D] a projection's output before the residual add
  Tensor residual;  // [rows, D] the last block's output, and what flows between blocks that keep
                    // nothing
  Tensor final_stats, final_normed;  // [rows, 2], [rows, D]
  Tensor logits;                     // [rows, V]
  // Gradients (only with keep_for_backward).
  Tensor d_residual;     // [rows, D] flows through the whole backward pass
  Tensor d_branch;       // [rows, D]
  Tensor d_normed;       // [rows, max(D, H * E)]
  Tensor d_input;        // [rows, max(D, H * E, F)]
  Tensor d_gate, d_up;   // [rows, F]; d_gate is empty in a feed-forward without gate
  Tensor d_q, d_k, d_v;  // like q, k, v

 private:
  std::vector<LayerActivations> layers_;
  std::int64_t bytes_ = 0;
};

}  // namespace bitnet
