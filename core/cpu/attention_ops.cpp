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

// rope_append(), a key/value head of up to 16 positions at a time.
class CacheAppend {
 public:
  CacheAppend(const FloatKernels& kernels, TensorView q, TensorView k, ConstTensorView v,
              ConstTensorView table, std::int64_t first_position, TensorView keys,
              TensorView values)
      : kernels_(kernels),
        q_(q.as<float>().data()),
        k_(k.as<float>().data()),
        v_(v.as<float>().data()),
        angles_(table.as<float>().data()),
        keys_(keys.raw()),
        values_(values.raw()),
        half_(keys.dtype() == DType::f16),
        kv_heads_(k.dim(2)),
        group_(q.dim(2) / kv_heads_),
        head_dim_(k.dim(3)),
        first_(first_position),
        end_(first_position + q.dim(1)) {
    BITNET_CHECK(head_dim_ % 16 == 0, "rope_append of heads of {}, expected a multiple of 16",
                 head_dim_);
  }

  void move_to(std::int64_t first_position) {
    end_ += first_position - first_;
    first_ = first_position;
  }

  // Of one token, unit g is key/value head g.
  std::int64_t units() const {
    return (tile_count(end_, kInterleavedKeys) - first_ / kInterleavedKeys) * kv_heads_;
  }

  void run(std::int64_t unit) const {
    const std::int64_t start = (first_ / kInterleavedKeys + unit / kv_heads_) * kInterleavedKeys,
                       g = unit % kv_heads_, kv_width = kv_heads_ * head_dim_;
    const std::int64_t first = std::max(start, first_),
                       end = std::min(start + kInterleavedKeys, end_);
    const std::int64_t element = size_of(half_ ? DType::f16 : DType::f32);
    const auto row_of = [&](std::int64_t position) {
      return (position - first_) * kv_width + g * head_dim_;
    };
    for (std::int64_t position = first; position < end; ++position) {
      const float* const turns = angles_ + position * head_dim_;
      const std::int64_t row = row_of(position);
      kernels_.rope(q_ + row * group_, turns, group_, head_dim_, 1.0f);
      kernels_.rope(k_ + row, turns, 1, head_dim_, 1.0f);
      std::byte* const to = values_ + (position * kv_width + g * head_dim_) * element;
      if (half_) {
        kernels_.narrow(v_ + row, reinterpret_cast<std::uint16_t*>(to), head_dim_);
      } else {
        std::copy_n(v_ + row, head_dim_, reinterpret_cast<float*>(to));
      }
    }
    kernels_.interleave_keys(
        k_ + row_of(first), kv_width, end - first, head_dim_, first - start, half_,
        keys_ + (start * kv_width + g * head_dim_ * kInterleavedKeys) * element);
  }

 private:
  const FloatKernels& kernels_;
  float *q_, *k_;
  const float *v_, *angles_;
  std::byte *keys_, *values_;
  bool half_;
  std::int64_t kv_heads_, group_, head_dim_, first_, end_;
};

// attention() of few queries over caches, by up to kTokenHeads query heads of a key/value head.
class CacheAttention {
 public:
  CacheAttention(const FloatKernels& kernels, const AttentionShape& shape, ConstTensorView q,
                 ConstTensorView k, ConstTensorView v, TensorView out, TensorView logsumexp)
      : kernels_(kernels),
        s_(shape),
        q_(q.as<float>().data()),
        k_(k.raw()),
        v_(v.raw()),
        dtype_(k.dtype()),
        out_(out.as<float>().data()),
        logsumexp_(logsumexp.as<float>().data()),
        group_(shape.heads / shape.kv_heads),
        parts_(tile_count(group_, kTokenHeads)),
        scale_(score_scale(shape)) {}

  void move_to(std::int64_t first_position) {
    s_.first_position = first_position;
    s_.keys = first_position + s_.queries;
  }

  // Of one token whose heads are not cut into parts, unit g is key/value head g.
  std::int64_t units() const { return s_.queries * s_.kv_heads * parts_; }
  std::int64_t units_per_task() const {
    const std::int64_t work = (s_.first_position + s_.queries) * s_.head_dim * (group_ + 3);
    return std::max<std::int64_t>(kTokenWork / work, 1);
  }

  void run(std::int64_t unit) const {
    const std::int64_t g = unit / parts_ % s_.kv_heads, t = unit / parts_ / s_.kv_heads;
    const std::int64_t within = unit % parts_ * kTokenHeads, h = g * group_ + within;
    const std::int64_t at = (t * s_.heads + h) * s_.head_dim;
    const std::int64_t head = g * s_.head_dim * size_of(dtype_);
    kernels_.attention_token(
        {.q = q_ + at,
         .k = k_ + head * kInterleavedKeys,
         .v = v_ + head,
         .half = dtype_ == DType::f16,
         .out = out_ + at,
         .logsumexp = logsumexp_ == nullptr ? nullptr : logsumexp_ + h * s_.queries + t,
         .logsumexp_stride = s_.queries,
         .kv_stride = s_.kv_heads * s_.head_dim,
         .heads = std::min(kTokenHeads, group_ - within),
         .position = s_.first_position + t,
         .head_dim = s_.head_dim,
         .scale = scale_});
  }

 private:
  const FloatKernels& kernels_;
  AttentionShape s_;
  const float* q_;
  const std::byte *k_, *v_;
  DType dtype_;
  float *out_, *logsumexp_;
  std::int64_t group_, parts_;
  float scale_;
};

// cached_attention() of one token: a key/value head is turned and appended by the task that attends
// to it.
class TokenAttention {
 public:
  // positions: for which the caches and the table of angles have room.
  TokenAttention(const ThreadTeam& team, std::int64_t positions, const CacheAppend& append,
                 const CacheAttention& attention)
      : team_(team), positions_(positions), append_(append), attention_(attention) {}

  void operator()(std::int64_t position) {
    BITNET_CHECK(position >= 0 && position < positions_, "a token at position {} of {}", position,
                 positions_);
    append_.move_to(position);
    attention_.move_to(position);
    heads_per_task_ = attention_.units_per_task();
    team_.run(tile_count(attention_.units(), heads_per_task_),
              [token = this](std::int64_t task) { token->run(task); });
  }

 private:
  void run(std::int64_t task) const {
    const std::int64_t first = task * heads_per_task_,
                       end = std::min(first + heads_per_task_, attention_.units());
    for (std::int64_t g = first; g < end; ++g) {
      append_.run(g);
      attention_.run(g);
    }
  }

  const ThreadTeam& team_;
  std::int64_t positions_;
  CacheAppend append_;
  CacheAttention attention_;
  std::int64_t heads_per_task_ = 1;
};

}  // namespace

void CpuBackend::rope(TensorView x, ConstTensorView table, std::int64_t first_position,
                      RopeDirection direction) {
  check_rope(x, table, first_position);
  const std::int64_t tokens = x.dim(1), heads = x.dim(2), head_dim = x.dim(3),
                     width = heads * head_dim;
  float* rows = x.as<float>().data();
  const float* angles = table.as<float>().data();
  const float sign = direction == RopeDirection::forward ? 1.0f : -1.0f;
  run_stretches(team(), x.dim(0) * tokens, rows_per_stretch(width),
                [&](std::int64_t first, std::int64_t count) {
                  for (std::int64_t row = first; row < first + count; ++row) {
                    float_->rope(rows + row * width,
                                 angles + (first_position + row % tokens) * head_dim, heads,
                                 head_dim, sign);
                  }
                });
}

void CpuBackend::rope_append(TensorView q, TensorView k, ConstTensorView v, ConstTensorView table,
                             std::int64_t first_position, TensorView keys, TensorView values) {
  check_rope_append(q, k, v, table, first_position, keys, values);
  const CacheAppend append(*float_, q, k, v, table, first_position, keys, values);
  team().run(append.units(), [&](std::int64_t unit) { append.run(unit); });
}

void CpuBackend::cached_attention(const AttentionShape& s, TensorView q, TensorView k,
                                  ConstTensorView v, ConstTensorView table, TensorView keys,
                                  TensorView values, TensorView out) {
  if (s.queries != 1 || s.heads > s.kv_heads * kTokenHeads) {
    Backend::cached_attention(s, q, k, v, table, keys, values, out);
    return;
  }
  check_cached_attention(s, keys);
  check_rope_append(q, k, v, table, s.first_position, keys, values);
  const ConstTensorView all_k = cached_tokens(s, keys), all_v = cached_tokens(s, values);
  check_attention(s, kMaxHeadDim, q, all_k, all_v, out, {});
  issue(TokenAttention(issued_team_, std::min(keys.dim(0), table.dim(0)),
                       {*float_, q, k, v, table, s.first_position, keys, values},
                       {*float_, s, q, all_k, all_v, out, {}}),
        s.first_position);
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
    const CacheAttention few(*float_, s, q, k, v, out, logsumexp);
    run_stretches(team(), few.units(), few.units_per_task(),
                  [&](std::int64_t first, std::int64_t count) {
                    for (std::int64_t unit = first; unit < first + count; ++unit) few.run(unit);
                  });
    return;
  }

  // Blocks end where tiles of positions do. The blocks of a head follow each other, since its keys
  // are then in the cache; the last, which sees the most keys, first.
  const std::int64_t lead = s.first_position % kAttentionTile;
  const std::int64_t blocks = tile_count(lead + s.queries, kAttentionTile);
  team().run(s.batch * s.heads * blocks, [&](std::int64_t task) {
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
  team().run(s.batch * s.kv_heads * parts, [&](std::int64_t task) {
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
  run_stretches(team(), size, kStretch, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t part = 0; part < parts - 1; ++part) {
      const float* from = partial + 2 * part * size + first;
      float_->add(pdk + first, from, pdk + first, count);
      float_->add(pdv + first, from + size, pdv + first, count);
    }
  });
}

}  // namespace bitnet::cpu
