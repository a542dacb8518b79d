// SPDX-License-Identifier: MIT
// Attention's operands as the tensor cores read them: rounded to bf16, the rows of a head next to
// each other, and a row padded with zeros from head_dim E to P elements. Each is read many times
// (once for every tile of the other side), so it is converted once; what is bf16 already is moved.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "cuda/position.h"
#include "cuda/reals.h"

namespace bitnet::cuda {

inline constexpr int kMaxAttentionHeadDim = 256;

// P, one of the widths that the kernels are compiled for.
constexpr int attention_operand_width(int head_dim) {
  return head_dim <= 96 ? (head_dim + 31) / 32 * 32 : head_dim <= 128 ? 128 : 256;
}

struct QueryOperand {
  ConstReals x;  // [B, T, H, E]
  float scale;
  __nv_bfloat16* y;  // [B, H, T, P]: scale * x
  int batch, tokens, heads, head_dim;
};

// A row of v with an element that is no finite bf16 becomes zeros, and the same part of its row of
// k NaN: whoever attends to it gets NaN from the score, while the zero weights of those who must
// not see it meet zeros, not 0 * NaN.
template <typename Input>  // float, __half or __nv_bfloat16
struct KeyValueOperands {
  const Input *k, *v;                    // [B, S, G, E]
  __nv_bfloat16 *operand_k, *operand_v;  // [B, G, room, P]
  Position first_position;               // rows below first_position + queries are converted
  int queries, batch, keys, room, kv_heads, head_dim;  // keys = S
};

// All pointers are aligned to 16 bytes; E is a multiple of 16, at most kMaxAttentionHeadDim.
// cudaErrorInvalidValue for a shape that is not supported.
cudaError_t query_operand(const QueryOperand& op, cudaStream_t stream);
template <typename Input>
cudaError_t key_value_operands(const KeyValueOperands<Input>& op, cudaStream_t stream);

}  // namespace bitnet::cuda
