// SPDX-License-Identifier: MIT
// The feed-forward: down_proj(SubNorm(act(gate) * up)) with SwiGLU or gated ReLU², or
// down_proj(SubNorm(act(up))).
#pragma once

#include <optional>

#include "core/model/bit_linear.h"

namespace bitnet {

class FeedForward {
 public:
  FeedForward(const ModelConfig& config, Parameters& parameters, std::int64_t layer);

  // Reads l.ffn_in; residual: [rows, D], added to y, or empty; y: [rows, D].
  void forward(Pass& pass, LayerActivations& l, ConstTensorView residual, TensorView y) const;
  // dy: [rows, D]; returns the gradient by ffn_in, [rows, D], in activations.d_input.
  TensorView backward(Pass& pass, LayerActivations& l, ConstTensorView dy) const;

 private:
  std::int64_t width_;
  std::optional<BitLinear> gate_proj_;
  BitLinear up_proj_, down_proj_;
  LinearInputNorm sub_norm_;
};

}  // namespace bitnet
