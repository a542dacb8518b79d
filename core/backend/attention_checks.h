// SPDX-License-Identifier: MIT
// What the operands of RoPE and of an attention must be on every backend; their dtypes are each backend's own.
#pragma once

#include "core/backend/backend.h"

namespace bitnet {

inline Shape query_shape(const AttentionShape& s) {
  return {s.batch, s.queries, s.heads, s.head_dim};
}
inline Shape kv_shape(const AttentionShape& s) { return {s.batch, s.keys, s.kv_heads, s.head_dim}; }
inline Shape logsumexp_shape(const AttentionShape& s) { return {s.batch, s.heads, s.queries}; }
// The first `keys` tokens of a cache [capacity, G, E], as attention() takes them.
inline ConstTensorView cached_tokens(const AttentionShape& s, ConstTensorView cache) {
  return cache.rows(0, s.keys).reshaped(kv_shape(s));
}

// x and table as rope() takes them. Throws ContractError, as all of these do.
void check_rope(ConstTensorView x, ConstTensorView table, std::int64_t first_position);

// The tensors of rope_append(); the caches have room for the new tokens.
void check_rope_append(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                       ConstTensorView table, std::int64_t first_position, ConstTensorView keys,
                       ConstTensorView values);

// `name` is "q", "dout", …
void check_attention_view(const char* name, ConstTensorView x, const Shape& expected);

// The numbers of the shape, and q, k, v, out. logsumexp may be empty.
void check_attention(const AttentionShape& s, std::int64_t max_head_dim, ConstTensorView q,
                     ConstTensorView k, ConstTensorView v, ConstTensorView out,
                     ConstTensorView logsumexp);
// The shape of cached_attention() and a cache of its keys or values.
void check_cached_attention(const AttentionShape& s, ConstTensorView cache);
// As check_attention() for attention_backward(), whose sequences are whole, and its other tensors.
void check_attention_backward(const AttentionShape& s, std::int64_t max_head_dim, ConstTensorView q,
                              ConstTensorView k, ConstTensorView v, ConstTensorView out,
                              ConstTensorView logsumexp, ConstTensorView dout, ConstTensorView dq,
                              ConstTensorView dk, ConstTensorView dv);

}  // namespace bitnet
