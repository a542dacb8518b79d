// SPDX-License-Identifier: MIT
// Causal grouped-query attention on tensor cores (FlashAttention-2): out = softmax(q kᵀ) v with an
// online softmax in fp32 over tiles of keys, bf16 operands (cuda/attention_operands.h) and fp32
// sums. Tiles of keys start at key 0, and keys that a query must not see change no bit of its row:
// a row's result depends on that row and its keys alone. With u = 2^-8, the rounding of bf16, and a
// = max over j of sum |q k_j| / sqrt(E), a row is within (e^(4 u a) - 1 + 2 u) sum_j p_j |v_j| of
// the exact one, beside fp32 rounding: q and k are rounded in the scores, which count in p and in
// the sum that p is divided by; p and v are rounded in their product.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "cuda/position.h"
#include "cuda/reals.h"

namespace bitnet::cuda {

struct AttentionForward {
  const __nv_bfloat16* q;         // [B, H, T, P], times log2(e) / sqrt(E)
  const __nv_bfloat16 *k, *v;     // [B, G, room, P], v finite
  Reals out;                      // [B, T, H, E]
  float* logsumexp;               // [B, H, T], natural, or null
  Position first_position;        // query t sees keys 0 .. first_position + t
  int batch, queries, room;       // T; rows of k and v for each sequence
  int heads, kv_heads, head_dim;  // H, G, E
};

// Operands are aligned to 16 bytes. cudaErrorInvalidValue for a shape that is not supported.
cudaError_t attention_forward(const AttentionForward& op, cudaStream_t stream);

}  // namespace bitnet::cuda
