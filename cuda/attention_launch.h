// SPDX-License-Identifier: MIT
// What the launches of attention's tensor core kernels share: the shapes that they take, and the
// choice of the kernel for an operand's width.
#pragma once

#include "cuda/attention_operands.h"

namespace bitnet::cuda {

constexpr bool is_attention_head(int head_dim) {
  return head_dim >= 16 && head_dim % 16 == 0 && head_dim <= kMaxAttentionHeadDim;
}

// rows: the queries of a sequence.
constexpr bool is_attention_shape(int batch, int rows, int heads, int kv_heads, int head_dim) {
  return batch >= 1 && rows >= 1 && kv_heads >= 1 && heads >= kv_heads && heads % kv_heads == 0 &&
         is_attention_head(head_dim);
}

// Calls launch.operator()<P>() with P = attention_operand_width(head_dim).
template <typename Launch>
cudaError_t launch_for_width(int head_dim, const Launch& launch) {
  switch (attention_operand_width(head_dim)) {
    case 32:
      return launch.template operator()<32>();
    case 64:
      return launch.template operator()<64>();
    case 96:
      return launch.template operator()<96>();
    case 128:
      return launch.template operator()<128>();
    default:
      return launch.template operator()<256>();
  }
}

}  // namespace bitnet::cuda
