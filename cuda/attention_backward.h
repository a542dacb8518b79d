// SPDX-License-Identifier: MIT
// Backward of attention_forward() over whole sequences, on tensor cores: with p = softmax(q kᵀ),
// computed again from the saved logsumexp,
//   ds = p ∘ (dout vᵀ - delta),  delta[t] = dout[t] · out[t],
//   dq = ds k / sqrt(E),  dk = dsᵀ q / sqrt(E),  dv = pᵀ dout.
// Operands, p and ds are rounded to bf16, sums are fp32; what is bf16 in
// memory is rounded once, as it is stored. Sums go over queries or keys in ascending
// order, for dk and dv within the query heads in ascending order: the same bits in every run. A NaN
// may spread to other rows of the gradients of its sequence.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "cuda/reals.h"

namespace bitnet::cuda {

// Rows of a head in AttentionRows::rows, the `room` below: T, up to whole blocks.
constexpr int attention_row_room(int tokens) { return (tokens + 63) / 64 * 64; }

// What the backward needs of each row of the forward's result: logsumexp in units of log 2, delta.
struct AttentionRows {
  ConstReals out, dout;    // [B, T, H, E]
  const float* logsumexp;  // [B, H, T], natural
  float2* rows;            // [B, H, room]; infinity and 0 from T on: p and ds are 0 there
  int batch, tokens, room, heads, head_dim;
};

struct AttentionBackward {
  const __nv_bfloat16* q;      // [B, H, T, P], times log2(e) / sqrt(E)
  const __nv_bfloat16* dout;   // [B, H, T, P]
  const __nv_bfloat16 *k, *v;  // [B, G, T, P]
  const float2* rows;          // [B, H, room]
  Reals dq;                    // [B, T, H, E]
  Reals dk, dv;                // [B, T, G, E]
  float score_scale;           // 1 / sqrt(E)
  int batch, tokens, room, heads, kv_heads, head_dim;
};

// All pointers are aligned to 16 bytes. cudaErrorInvalidValue for a shape that is not supported.
cudaError_t attention_rows(const AttentionRows& op, cudaStream_t stream);
cudaError_t attention_backward(const AttentionBackward& op, cudaStream_t stream);

}  // namespace bitnet::cuda
