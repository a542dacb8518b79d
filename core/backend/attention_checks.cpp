// SPDX-License-Identifier: MIT
#include "core/backend/attention_checks.h"

namespace bitnet {

void check_rope(ConstTensorView x, ConstTensorView table, std::int64_t first_position) {
  BITNET_CHECK(
      x.shape().rank() == 4 && x.dim(3) % 2 == 0 && table.shape().rank() == 2 &&
          table.dim(1) == x.dim(3),
      "rope turns {} by a table {}, expected [B, T, heads, E] with an even E, and [positions, E]",
      x.shape().to_string(), table.shape().to_string());
  const std::int64_t tokens = x.dim(1);
  BITNET_CHECK(first_position >= 0 && first_position + tokens <= table.dim(0),
               "rope at positions [{}, {}), but its table ends at {}", first_position,
               first_position + tokens, table.dim(0));
}

void check_rope_append(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                       ConstTensorView table, std::int64_t first_position, ConstTensorView keys,
                       ConstTensorView values) {
  check_rope(q, table, first_position);
  check_rope(k, table, first_position);
  BITNET_CHECK(
      q.dim(0) == 1 && k.dim(0) == 1 && q.dim(1) == k.dim(1) && v.shape() == k.shape() &&
          k.dim(2) >= 1 && q.dim(2) % k.dim(2) == 0,
      "rope_append of q {}, k {}, v {}, expected [1, T, H, E] and two of [1, T, G, E], H a "
      "multiple of G",
      q.shape().to_string(), k.shape().to_string(), v.shape().to_string());
  BITNET_CHECK(keys.shape() == values.shape() && keys.shape().rank() == 3 &&
                   keys.dim(1) == k.dim(2) && keys.dim(2) == k.dim(3) &&
                   first_position + k.dim(1) <= keys.dim(0) && keys.dim(0) % kCacheTile == 0,
               "rope_append of k {} at {} to caches {} and {}, expected [positions, G, E], a "
               "multiple of {} positions",
               k.shape().to_string(), first_position, keys.shape().to_string(),
               values.shape().to_string(), kCacheTile);
  BITNET_CHECK(q.dtype() == DType::f32 && k.dtype() == DType::f32 && v.dtype() == DType::f32 &&
                   (keys.dtype() == DType::f32 || keys.dtype() == DType::f16) &&
                   values.dtype() == keys.dtype(),
               "rope_append of {}, {}, {} to {} and {}, expected f32 to f32 or f16",
               to_string(q.dtype()), to_string(k.dtype()), to_string(v.dtype()),
               to_string(keys.dtype()), to_string(values.dtype()));
}

void check_attention_view(const char* name, ConstTensorView x, const Shape& expected) {
  BITNET_CHECK(x.shape() == expected, "attention's {} is {}, expected {}", name,
               x.shape().to_string(), expected.to_string());
}

void check_attention(const AttentionShape& s, std::int64_t max_head_dim, ConstTensorView q,
                     ConstTensorView k, ConstTensorView v, ConstTensorView out,
                     ConstTensorView logsumexp) {
  BITNET_CHECK(s.heads >= 1 && s.kv_heads >= 1 && s.heads % s.kv_heads == 0,
               "attention has {} query heads and {} key/value heads, expected a multiple", s.heads,
               s.kv_heads);
  BITNET_CHECK(s.head_dim >= 16 && s.head_dim % 16 == 0 && s.head_dim <= max_head_dim,
               "attention's head_dim is {}, expected a multiple of 16 from 16 to {}", s.head_dim,
               max_head_dim);
  BITNET_CHECK(s.batch >= 0 && s.queries >= 0 && s.first_position >= 0 &&
                   s.first_position + s.queries <= s.keys,
               "attention's queries stand at [{}, {}), beyond its {} keys", s.first_position,
               s.first_position + s.queries, s.keys);
  BITNET_CHECK(
      s.capacity == 0 || (s.batch == 1 && s.keys <= s.capacity && s.capacity % kCacheTile == 0),
      "attention of {} sequences over {} keys in caches of {}, expected 1 and a multiple of "
      "{} that holds them",
      s.batch, s.keys, s.capacity, kCacheTile);
  check_attention_view("q", q, query_shape(s));
  check_attention_view("k", k, kv_shape(s));
  check_attention_view("v", v, kv_shape(s));
  check_attention_view("out", out, query_shape(s));
  if (logsumexp) check_attention_view("logsumexp", logsumexp, logsumexp_shape(s));
}

void check_cached_attention(const AttentionShape& s, ConstTensorView cache) {
  BITNET_CHECK(cache.shape().rank() == 3 && s.capacity == cache.dim(0) &&
                   s.keys == s.first_position + s.queries,
               "cached_attention of {} queries from position {} over {} keys and a capacity of {}, "
               "with a cache {}, expected keys that end with the queries, and the cache's capacity",
               s.queries, s.first_position, s.keys, s.capacity, cache.shape().to_string());
}

void check_attention_backward(const AttentionShape& s, std::int64_t max_head_dim, ConstTensorView q,
                              ConstTensorView k, ConstTensorView v, ConstTensorView out,
                              ConstTensorView logsumexp, ConstTensorView dout, ConstTensorView dq,
                              ConstTensorView dk, ConstTensorView dv) {
  check_attention(s, max_head_dim, q, k, v, out, {});
  BITNET_CHECK(
      s.queries == s.keys && s.first_position == 0,
      "attention_backward got {} queries from position {} and {} keys, expected a whole sequence",
      s.queries, s.first_position, s.keys);
  check_attention_view("logsumexp", logsumexp, logsumexp_shape(s));
  check_attention_view("dout", dout, query_shape(s));
  check_attention_view("dq", dq, query_shape(s));
  check_attention_view("dk", dk, kv_shape(s));
  check_attention_view("dv", dv, kv_shape(s));
}

}  // namespace bitnet
