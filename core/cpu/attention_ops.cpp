// SPDX-License-Identifier: MIT
// RoPE and causal grouped-query attention.
#include <algorithm>
#include <cmath>

#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/stretches.h"

namespace bitnet::cpu {
namespace {

void check_view(const char* name, ConstTensorView x, const Shape& expected) {
  BITNET_CHECK(x.shape() == expected, "attention's {} is {}, expected {}", name,
               x.shape().to_string(), expected.to_string());
}

Shape query_shape(const AttentionShape& s) { return {s.batch, s.queries, s.heads, s.head_dim}; }

Shape kv_shape(const AttentionShape& s) { return {s.batch, s.keys, s.kv_heads, s.head_dim}; }

void check_operands(const AttentionShape& s, ConstTensorView q, ConstTensorView k,
                    ConstTensorView v, ConstTensorView out) {
  BITNET_CHECK(s.heads >= 1 && s.kv_heads >= 1 && s.heads % s.kv_heads == 0,
               "attention has {} query heads and {} key/value heads, expected a multiple", s.heads,
               s.kv_heads);
  BITNET_CHECK(s.head_dim >= 16 && s.head_dim % 16 == 0 && s.head_dim <= kMaxHeadDim,
               "attention's head_dim is {}, expected a multiple of 16 from 16 to {}", s.head_dim,
               kMaxHeadDim);
  BITNET_CHECK(s.batch >= 0 && s.queries >= 0 && s.first_position >= 0 &&
                   s.first_position + s.queries <= s.keys,
               "attention's queries stand at [{}, {}), beyond its {} keys", s.first_position,
               s.first_position + s.queries, s.keys);
  check_view("q", q, query_shape(s));
  check_view("k", k, kv_shape(s));
  check_view("v", v, kv_shape(s));
  check_view("out", out, query_shape(s));
}

float score_scale(const AttentionShape& s) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(s.head_dim)));
}

}  // namespace

void CpuBackend::rope(TensorView x, ConstTensorView table, std::int64_t first_position,
                      RopeDirection direction) {
  BITNET_CHECK(
      x.shape().rank() == 4 && x.dim(3) % 2 == 0 && table.shape().rank() == 2 &&
          table.dim(1) == x.dim(3),
      "rope turns {} by a table {}, expected [B, T, heads, E] with an even E, and [positions, E]",
      x.shape().to_string(), table.shape().to_string());
  const std::int64_t tokens = x.dim(1), heads = x.dim(2), head_dim = x.dim(3),
                     width = heads * head_dim;
  BITNET_CHECK(first_position >= 0 && first_position + tokens <= table.dim(0),
               "rope at positions [{}, {}), but its table ends at {}", first_position,
               first_position + tokens, table.dim(0));
  float* rows = x.as<float>().data();
  const float* angles = table.as<float>().data();
  const float sign = direction == RopeDirection::forward ? 1.0f : -1.0f;
  run_stretches(team_, x.dim(0) * tokens, rows_per_stretch(width),
                [&](std::int64_t first, std::int64_t count) {
                  for (std::int64_t row = first; row < first + count; ++row) {
                    float_->rope(rows + row * width,
                                 angles + (first_position + row % tokens) * head_dim, heads,
                                 head_dim, sign);
                  }
                });
}

void CpuBackend::attention(const AttentionShape& s, ConstTensorView q, ConstTensorView k,
                           ConstTensorView v, TensorView out, TensorView logsumexp) {
  check_operands(s, q, k, v, out);
  if (logsumexp) check_view("logsumexp", logsumexp, {s.batch, s.heads, s.queries});
  const std::int64_t q_stride = s.heads * s.head_dim, kv_stride = s.kv_heads * s.head_dim;
  const std::int64_t blocks = tile_count(s.queries, kAttentionTile);
  const float *queries = q.as<float>().data(), *keys = k.as<float>().data(),
              *values = v.as<float>().data();
  float *to = out.as<float>().data(), *lse = logsumexp.as<float>().data();
  const float scale = score_scale(s);
  team_.run(s.batch * s.heads * blocks, [&](std::int64_t task) {
    // Last block first: it sees the most keys, and threads that finish early then take short ones.
    const std::int64_t block = blocks - 1 - task / (s.batch * s.heads);
    const std::int64_t b = task % (s.batch * s.heads) / s.heads, h = task % s.heads;
    const std::int64_t first = block * kAttentionTile;
    const std::int64_t q_at = (b * s.queries + first) * q_stride + h * s.head_dim;
    const std::int64_t kv_at = b * s.keys * kv_stride + h / (s.heads / s.kv_heads) * s.head_dim;
    float_->attention(
        {.q = queries + q_at,
         .k = keys + kv_at,
         .v = values + kv_at,
         .out = to + q_at,
         .logsumexp = lse == nullptr ? nullptr : lse + (b * s.heads + h) * s.queries + first,
         .q_stride = q_stride,
         .kv_stride = kv_stride,
         .queries = std::min(kAttentionTile, s.queries - first),
         .first_position = s.first_position + first,
         .head_dim = s.head_dim,
         .scale = scale});
  });
}

void CpuBackend::attention_backward(const AttentionShape& s, ConstTensorView q, ConstTensorView k,
                                    ConstTensorView v, ConstTensorView out,
                                    ConstTensorView logsumexp, ConstTensorView dout, TensorView dq,
                                    TensorView dk, TensorView dv) {
  check_operands(s, q, k, v, out);
  BITNET_CHECK(
      s.queries == s.keys && s.first_position == 0,
      "attention_backward got {} queries from position {} and {} keys, expected a whole sequence",
      s.queries, s.first_position, s.keys);
  check_view("logsumexp", logsumexp, {s.batch, s.heads, s.queries});
  check_view("dout", dout, query_shape(s));
  check_view("dq", dq, query_shape(s));
  check_view("dk", dk, kv_shape(s));
  check_view("dv", dv, kv_shape(s));
  const std::int64_t q_stride = s.heads * s.head_dim, kv_stride = s.kv_heads * s.head_dim;
  const std::int64_t group = s.heads / s.kv_heads;
  const float scale = score_scale(s);
  const auto *pq = q.as<float>().data(), *pk = k.as<float>().data(), *pv = v.as<float>().data();
  const auto *pout = out.as<float>().data(), *pdout = dout.as<float>().data();
  const float* lse = logsumexp.as<float>().data();
  float *pdq = dq.as<float>().data(), *pdk = dk.as<float>().data(), *pdv = dv.as<float>().data();
  // A task for each sequence and key/value head: dk and dv sum over its queries in one fixed order.
  team_.run(s.batch * s.kv_heads, [&](std::int64_t task) {
    const std::int64_t b = task / s.kv_heads, g = task % s.kv_heads;
    const std::int64_t q_at = b * s.queries * q_stride + g * group * s.head_dim;
    const std::int64_t kv_at = b * s.keys * kv_stride + g * s.head_dim;
    float_->attention_backward({.q = pq + q_at,
                                .out = pout + q_at,
                                .dout = pdout + q_at,
                                .dq = pdq + q_at,
                                .k = pk + kv_at,
                                .v = pv + kv_at,
                                .dk = pdk + kv_at,
                                .dv = pdv + kv_at,
                                .logsumexp = lse + (b * s.heads + g * group) * s.queries,
                                .q_stride = q_stride,
                                .kv_stride = kv_stride,
                                .tokens = s.queries,
                                .heads = group,
                                .head_dim = s.head_dim,
                                .scale = scale});
  });
}

}  // namespace bitnet::cpu
