// SPDX-License-Identifier: MIT
// Causal grouped-query attention of a few new tokens over a cache, in fp32. The keys are cut into
// stretches of kDecodeKeys, one block each for up to four query heads of a key/value head; a
// second kernel folds the stretches' results, weighted by 2^(their largest score - the largest of all). Stretches
// start at key 0 whatever the cache's capacity: a row's result depends on that row and its keys
// alone. Blocks behind the last key do nothing, so the launch is the same for all positions.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "cuda/position.h"

namespace bitnet::cuda {

inline constexpr int kDecodeKeys = 32;  // a stretch is read at once: more blocks, less latency
constexpr int attention_decode_stretches(int capacity) {
  return (capacity + kDecodeKeys - 1) / kDecodeKeys;
}

template <typename Input>  // float or __half
struct AttentionDecode {
  const float* q;           // [B, T, H, E]
  const Input *k, *v;       // [B, S, G, E]
  float* out;               // [B, T, H, E]
  float* logsumexp;         // [B, H, T], natural, or null
  float* partial_out;       // [B, T, H, stretches, E]: sums of 2^(score - largest) v
  float2* partial_sums;     // [B, T, H, stretches]: largest score, sum of 2^(score - largest)
  Position first_position;  // query t sees keys 0 .. first_position + t
  float score_scale;        // log2(e) / sqrt(E)
  int batch, queries, keys, stretches;  // T, S
  int heads, kv_heads, head_dim;        // H, G, E
};

// Pointers are aligned to 16 bytes (partial_sums to 8). cudaErrorInvalidValue for a shape that is
// not supported.
template <typename Input>
cudaError_t attention_decode(const AttentionDecode<Input>& op, cudaStream_t stream);

}  // namespace bitnet::cuda
