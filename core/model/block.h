// SPDX-License-Identifier: MIT
// One block:  h = x + Dropout(Attention(Norm(x))),  y = h + Dropout(FeedForward(Norm(h))).
#pragma once

#include "core/model/attention.h"
#include "core/model/feed_forward.h"

namespace bitnet {

class Block {
 public:
  Block(const ModelConfig& config, Parameters& parameters, std::int64_t layer);

  // x: [rows, D], the block's input (where the backward pass is wanted, activations keep it); y:
  // [rows, D], may be x.
  void forward(Pass& pass, TensorView x, TensorView y) const;
  // activations.d_residual [rows, D] is the gradient by y on entry, by x on return.
  void backward(Pass& pass) const;

 private:
  // y = x + dropout(branch(l.*_in)), where the branch adds its residual itself.
  template <typename Branch>
  void add_branch(Pass& pass, const Branch& branch, DropoutSite site, ConstTensorView x,
                  TensorView y) const;

  std::int64_t layer_;
  LinearInputNorm attn_norm_, ffn_norm_;
  Attention attention_;
  FeedForward feed_forward_;
};

}  // namespace bitnet
