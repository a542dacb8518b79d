// SPDX-License-Identifier: MIT
// Every buffer of a forward and backward pass, allocated once for a largest batch. What a layer
// must keep for its backward is separate from the scratch that all layers share.
#pragma once

#include <vector>

#include "core/backend/backend.h"
#include "core/base/unique_number.h"
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
  Tensor x;          // act [rows, K]
};

struct LayerActivations {
  Tensor attn_norm_stats;  // [rows, 2]
  LinearInput attn_in;     // K = D
  Tensor q, k, v;          // act [rows, H * E], [rows, G * E] twice; q and k after RoPE
  Tensor attn_out;         // act [rows, H * E], before the sub-norm
  Tensor logsumexp;        // [B, H, T], kept for the backward pass only
  Tensor attn_sub_stats;   // [rows, 2]
  LinearInput o_in;        // K = H * E
  Tensor ffn_residual;     // [rows, D], kept for the backward pass only
  Tensor ffn_norm_stats;   // [rows, 2]
  LinearInput ffn_in;      // K = D
  Tensor gate, up;         // act [rows, F]; gate is empty in a feed-forward without gate
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

// What a forward pass leaves for the backward pass: nothing; the input of each block, from which the
// backward pass computes the block again (gradient checkpointing); or everything.
enum class Keep : std::uint8_t { nothing, block_inputs, everything };

class Activations {
 public:
  // For up to `batch` sequences of up to `tokens` tokens. All layers share one LayerActivations
  // unless everything is kept. mixed: also the float inputs that the quantisation warm-up needs.
  // dtype: f32, or bf16 where the backend's training_dtype() is, of what is marked act below; the
  // residual stream and its gradient stay f32. kv_cache: f32, or, where nothing is kept and dtype is
  // f32, f16: forward() then rounds keys (after RoPE) and values as a KvCache of f16 does.
  Activations(Backend& backend, const ModelConfig& config, std::int64_t batch, std::int64_t tokens,
              Keep keep, bool mixed = false, DType dtype = DType::f32, DType kv_cache = DType::f32);

  LayerActivations& layer(std::int64_t index) {
    return layers_[layers_.size() == 1 ? 0 : static_cast<std::size_t>(index)];
  }
  // [rows, D]; only if something is kept.
  Tensor& block_input(std::int64_t layer) { return block_inputs_[static_cast<std::size_t>(layer)]; }
  std::int64_t bytes() const { return bytes_; }

  const std::uint64_t number = unique_number();
  std::int64_t max_batch, max_tokens;
  Keep keep;

  // Shared by all layers.
  Tensor normed;             // [rows, max(D, H * E, F)], only with `mixed`
  Tensor hidden_activation;  // act [rows, F] activation(gate) * up, where products are in floats
  Tensor branch;             // [rows, D] a projection's output before the residual add
  Tensor residual;  // [rows, D] the last block's output, and what flows between blocks that keep
                    // nothing
  Tensor final_stats, final_normed;  // [rows, 2], act [rows, D]
  Tensor logits;                     // [rows, V]
  Tensor kv_halves;                  // f16 [rows, G * E], only with a kv_cache of f16
  // Gradients (only if something is kept).
  Tensor d_residual;     // [rows, D] flows through the whole backward pass
  Tensor d_branch;       // [rows, D]
  Tensor d_normed;       // act [rows, max(D, H * E)]
  Tensor d_input;        // act [rows, max(D, H * E, F)]
  Tensor d_gate, d_up;   // act [rows, F]; d_gate is empty in a feed-forward without gate
  Tensor d_q, d_k, d_v;  // act, like q, k, v

 private:
  std::vector<LayerActivations> layers_;
  std::vector<Tensor> block_inputs_;
  std::int64_t bytes_ = 0;
};

}  // namespace bitnet
