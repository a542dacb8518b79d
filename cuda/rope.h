// SPDX-License-Identifier: MIT
// Rotary position embedding, half-split: elements i and i + E/2 of a head form a pair, which is
// turned by the angle of the token's position.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/position.h"
#include "cuda/reals.h"

namespace bitnet::cuda {

struct Rope {
  Reals x;              // [B, tokens, heads, E], in place
  const float* table;   // [positions, E]: cosines, then sines
  Position first;       // of the first token of each sequence
  float sign;           // 1, or -1 to turn back
  int rows;             // B * tokens
  int tokens;           // of a sequence
  int heads, head_dim;  // E, even
};

// cudaErrorInvalidValue for an empty shape or an odd E.
cudaError_t rope(const Rope& op, cudaStream_t stream);

// The same of the new queries and keys of one sequence, and in one go the new rows of its cache: the
// turned keys, and the values.
template <typename Cache>  // float, or __half: nearest even
struct RopeAppend {
  float* q;              // [tokens, heads, E], in place
  float* k;              // [tokens, kv_heads, E], in place
  const float* v;        // [tokens, kv_heads, E]
  Cache *keys, *values;  // [positions, kv_heads, E]: rows from `first` on
  const float* table;    // as above
  Position first;
  int tokens, heads, kv_heads, head_dim;
};
template <typename Cache>
cudaError_t rope_append(const RopeAppend<Cache>& op, cudaStream_t stream);

}  // namespace bitnet::cuda
