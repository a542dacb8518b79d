// SPDX-License-Identifier: MIT
// RoPE and causal grouped-query attention.
#include <algorithm>
#include <cmath>

#include "core/backend/attention_checks.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/stretches.h"

namespace bitnet::cpu {
namespace {

void check_dtypes(ConstTensorView k, ConstTensorView v) {
  BITNET_CHECK(k.dtype() == v.dtype() && (k.dtype() == DType::f32 || k.dtype() == DType::f16),
               "attention's k and v hold {} and {}, expected f32 or f16 in both",
               to_string(k.dtype()), to_string(v.dtype()));
}

float score_scale(const AttentionShape& s) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(s.head_dim)));
}

static_assert(kCacheTile % kInterleavedKeys == 0);

// With so few queries, the heads of a key/value head are worked on together instead of the queries.
constexpr std::int64_t kFewQueries = 3;
// Work of a task that is worth handing out, in key elements times (query heads + 3): 1 to 2
// microseconds.
constexpr std::int64_t kTokenWork = 1 << 15;
// With fewer pairs of sequence and key/value head, backward takes each query head by itself.
constexpr std::int64_t kFewPairs = 16;

}  // namespace

void CpuBackend::rope(TensorView x, ConstTensorView table, std::int64_t first_position,
                      RopeDirection direction) {
  check_rope(x, table, first_position);
  const std::int64_t tokens = x.dim(1), heads = x.dim(2), head_dim = x.dim(3),
                     width = heads * head_dim;
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

// A task is a key/value head of 16 positions. One token's are handed out like those of attention(), so
// that a thread mostly finds in its own caches what it wrote.
void CpuBackend::rope_append(TensorView q, TensorView k, ConstTensorView v, ConstTensorView table,
                             std::int64_t first_position, TensorView keys, TensorView values) {
  check_rope_append(q, k, v, table, first_position, keys, values);
  const std::int64_t tokens = q.dim(1), heads = q.dim(2), kv_heads = k.dim(2), head_dim = k.dim(3);
  BITNET_CHECK(head_dim % 16 == 0, "rope_append of heads of {}, expected a multiple of 16",
               head_dim);
  const std::int64_t group = heads / kv_heads, kv_width = kv_heads * head_dim;
  const bool half = keys.dtype() == DType::f16;
  const std::int64_t element = size_of(keys.dtype());
  float *q_rows = q.as<float>().data(), *k_rows = k.as<float>().data();
  const float *v_rows = v.as<float>().data(), *angles = table.as<float>().data();
  const std::int64_t first_group = first_position / kInterleavedKeys,
                     end_group = tile_count(first_position + tokens, kInterleavedKeys);
  team_.run((end_group - first_group) * kv_heads, [&](std::int64_t task) {
    const std::int64_t start = (first_group + task / kv_heads) * kInterleavedKeys,
                       g = task % kv_heads;
    const std::int64_t first = std::max(start, first_position),
                       end = std::min(start + kInterleavedKeys, first_position + tokens);
    const auto row_of = [&](std::int64_t position) {
      return (position - first_position) * kv_width + g * head_dim;
    };
    for (std::int64_t position = first; position < end; ++position) {
      const float* const turns = angles + position * head_dim;
      const std::int64_t row = row_of(position);
      float_->rope(q_rows + row * group, turns, group, head_dim, 1.0f);
      float_->rope(k_rows + row, turns, 1, head_dim, 1.0f);
      std::byte* const to = values.raw() + (position * kv_width + g * head_dim) * element;
      if (half) {
        float_->narrow(v_rows + row, reinterpret_cast<std::uint16_t*>(to), head_dim);
      } else {
        std::copy_n(v_rows + row, head_dim, reinterpret_cast<float*>(to));
      }
    }
    float_->interleave_keys(
        k_rows + row_of(first), kv_width, end - first, head_dim, first - start, half,
        keys.raw() + (start * kv_width + g * head_dim * kInterleavedKeys) * element);
  });
}

void CpuBackend::attention(const AttentionShape& s, ConstTensorView q, ConstTensorView k,
                           ConstTensorView v, TensorView out, TensorView logsumexp) {
  check_attention(s, kMaxHeadDim, q, k, v, out, logsumexp);
  check_dtypes(k, v);
  const std::int64_t q_stride = s.heads * s.head_dim, kv_stride = s.kv_heads * s.head_dim;
  const std::int64_t group = s.heads / s.kv_heads;
  const float* queries = q.as<float>().data();
  float *to = out.as<float>().data(), *lse = logsumexp.as<float>().data();
  const float scale = score_scale(s);
  // rope_append() interleaved a cache's keys.
  const bool cached = s.capacity > 0;
  const auto head_of = [&](ConstTensorView x, std::int64_t b, std::int64_t offset) {
    return x.raw() + (b * s.keys * kv_stride + offset) * size_of(x.dtype());
  };
  const std::int64_t key_head = cached ? s.head_dim * kInterleavedKeys : s.head_dim;
  const bool half = k.dtype() == DType::f16;
  if (s.queries == 0) return;

  if (cached && s.queries <= kFewQueries) {
    const std::int64_t parts = tile_count(group, kTokenHeads);  // of a key/value head's queries
    const std::int64_t units = s.queries * s.kv_heads * parts;
    const std::int64_t work = (s.first_position + s.queries) * s.head_dim * (group + 3);
    run_stretches(
        team_, units, std::max<std::int64_t>(kTokenWork / work, 1),
        [&](std::int64_t first, std::int64_t count) {
          for (std::int64_t unit = first; unit < first + count; ++unit) {
            const std::int64_t g = unit / parts % s.kv_heads, t = unit / parts / s.kv_heads;
            const std::int64_t within = unit % parts * kTokenHeads, h = g * group + within;
            const std::int64_t at = t * q_stride + h * s.head_dim;
            float_->attention_token(
                {.q = queries + at,
                 .k = head_of(k, 0, g * key_head),
                 .v = head_of(v, 0, g * s.head_dim),
                 .half = half,
                 .out = to + at,
                 .logsumexp = lse == nullptr ? nullptr : lse + h * s.queries + t,
                 .logsumexp_stride = s.queries,
                 .kv_stride = kv_stride,
                 .heads = std::min(kTokenHeads, group - within),
                 .position = s.first_position + t,
                 .head_dim = s.head_dim,
                 .scale = scale});
          }
        });
    return;
  }

  // Blocks end where tiles of positions do. The blocks of a head follow each other, since its keys
  // are then in the cache; the last, which sees the most keys, first.
  const std::int64_t lead = s.first_position % kAttentionTile;
  const std::int64_t blocks = tile_count(lead + s.queries, kAttentionTile);
  team_.run(s.batch * s.heads * blocks, [&](std::int64_t task) {
    const std::int64_t block = blocks - 1 - task % blocks;
    const std::int64_t b = task / blocks / s.heads, h = task / blocks % s.heads;
    const std::int64_t first = std::max<std::int64_t>(block * kAttentionTile - lead, 0);
    const std::int64_t end = std::min((block + 1) * kAttentionTile - lead, s.queries);
    const std::int64_t at = (b * s.queries + first) * q_stride + h * s.head_dim;
    float_->attention_block(
        {.q = queries + at,
         .k = head_of(k, b, h / group * key_head),
         .v = head_of(v, b, h / group * s.head_dim),
         .half = half,
         .interleaved = cached,
         .out = to + at,
         .logsumexp = lse == nullptr ? nullptr : lse + (b * s.heads + h) * s.queries + first,
         .q_stride = q_stride,
         .kv_stride = kv_stride,
         .queries = end - first,
         .first_position = s.first_position + first,
         .head_dim = s.head_dim,
         .scale = scale});
  });
}

void CpuBackend::attention_backward(const AttentionShape& s, ConstTensorView q, ConstTensorView k,
                                    ConstTensorView v, ConstTensorView out,
                                    ConstTensorView logsumexp, ConstTensorView dout, TensorView dq,
                                    TensorView dk, TensorView dv) {
  check_attention_backward(s, kMaxHeadDim, q, k, v, out, logsumexp, dout, dq, dk, dv);
  const std::int64_t q_stride = s.heads * s.head_dim, kv_stride = s.kv_heads * s.head_dim;
  const std::int64_t group = s.heads / s.kv_heads;
  const float scale = score_scale(s);
  const auto *pq = q.as<float>().data(), *pk = k.as<float>().data(), *pv = v.as<float>().data();
  const auto *pout = out.as<float>().data(), *pdout = dout.as<float>().data();
  const float* lse = logsumexp.as<float>().data();
  float *pdq = dq.as<float>().data(), *pdk = dk.as<float>().data(), *pdv = dv.as<float>().data();
  // A task for each sequence and key/value head, in which dk and dv sum over the query heads; where
  // these are few, a task for each query head with dk and dv of its own, summed afterwards in the
  // order of the heads.
  const std::int64_t parts = s.batch * s.kv_heads < kFewPairs ? group : 1, together = group / parts;
  const std::int64_t size = dk.elements(), rows = s.batch * s.heads * s.queries;
  float* const delta = reduction_scratch_.get<float>(rows + 2 * (parts - 1) * size);
  float* const partial = delta + rows;  // [parts - 1, 2, size]: dk, dv
  team_.run(s.batch * s.kv_heads * parts, [&](std::int64_t task) {
    const std::int64_t b = task / (s.kv_heads * parts), g = task / parts % s.kv_heads;
    const std::int64_t part = task % parts, h = g * group + part * together;
    const std::int64_t q_at = b * s.queries * q_stride + h * s.head_dim;
    const std::int64_t kv_at = b * s.keys * kv_stride + g * s.head_dim;
    const std::int64_t row_at = (b * s.heads + h) * s.queries;
    float* const part_dk = part == 0 ? pdk : partial + 2 * (part - 1) * size;
    float* const part_dv = part == 0 ? pdv : part_dk + size;
    float_->attention_backward({.q = pq + q_at,
                                .out = pout + q_at,
                                .dout = pdout + q_at,
                                .dq = pdq + q_at,
                                .k = pk + kv_at,
                                .v = pv + kv_at,
                                .dk = part_dk + kv_at,
                                .dv = part_dv + kv_at,
                                .logsumexp = lse + row_at,
                                .delta = delta + row_at,
                                .q_stride = q_stride,
                                .kv_stride = kv_stride,
                                .tokens = s.queries,
                                .heads = together,
                                .head_dim = s.head_dim,
                                .scale = scale});
  });
  if (parts == 1) return;
  run_stretches(team_, size, kStretch, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t part = 0; part < parts - 1; ++part) {
      const float* from = partial + 2 * part * size + first;
      float_->add(pdk + first, from, pdk + first, count);
      float_->add(pdv + first, from + size, pdv + first, count);
    }
  });
}

}  // namespace bitnet::cpu
