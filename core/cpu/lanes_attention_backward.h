// SPDX-License-Identifier: MIT
// Backward of causal attention from the saved logsumexp, by tiles of 64 queries x 64 keys. Every
// sum over keys, queries or head_dim is one fma chain in ascending order. Included by each
// float_<isa>.cpp after lanes_attention.h.
#pragma once

#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

inline float dot_row(const float* a, const float* b, std::int64_t n) {
  Lanes sum = zero();
  for (std::int64_t e = 0; e < n; e += 16) sum = fma(load(a + e), load(b + e), sum);
  return sum_lanes(sum);
}

// One query's row: from raw scores s and raw dp = dout · v to p = exp(score - logsumexp) and ds = p
// (dp - delta) scale, zero where masked.
inline void softmax_backward(float* s, float* dp, std::int64_t visible, std::int64_t columns,
                             float scale, float logsumexp, float delta) {
  const Lanes scale2 = set1(scale * kLog2E), offset = set1(0.0f - logsumexp * kLog2E);
  for (std::int64_t j = 0; j < columns; j += 16) {
    Lanes p = exp2(fma(load(s + j), scale2, offset));
    Lanes ds = (p * (load(dp + j) - set1(delta))) * set1(scale);
    if (j + 16 > visible) {
      const bool some = j < visible;
      p = some ? blend_first(First{static_cast<int>(visible - j)}, p, zero()) : zero();
      ds = some ? blend_first(First{static_cast<int>(visible - j)}, ds, zero()) : zero();
    }
    store(s + j, p);
    store(dp + j, ds);
  }
}

// One tile of keys and its values.
struct alignas(64) KeyTile {
  float keys[kTile * kMaxHeadDim];
  float keys_transposed[kMaxHeadDim * kTile], values_transposed[kMaxHeadDim * kTile];
  std::int64_t first, count;
};

// Adds what the queries first .. first + queries - 1 of one head give to the tile's dk and dv and
// to dq. On the diagonal, what is masked is left out by groups
// of 16; within a group it counts as zero.
void attend_backward(const AttentionBackward& a, std::int64_t head, std::int64_t first,
                     std::int64_t queries, const KeyTile& tile) {
  alignas(64) float p[kTile * kTile], ds[kTile * kTile];
  alignas(64) float q[kTile * kMaxHeadDim], dout[kTile * kMaxHeadDim];
  const std::int64_t at = first * a.q_stride + head * a.head_dim, e = a.head_dim;
  const bool diagonal = first == tile.first;
  pack_tile(a.q + at, a.q_stride, queries, e, q);
  pack_tile(a.dout + at, a.q_stride, queries, e, dout);
  for (std::int64_t i = 0; i < queries; i += 16) {
    const std::int64_t rows = smaller(16, queries - i);
    const std::int64_t columns = diagonal ? smaller(tile.count, i + 16) : tile.count;
    const std::int64_t row_at = head * a.tokens + first + i;
    // The same rows of the next block are asked for between the products, a few at a time.
    const std::int64_t next = at + (i + kTile) * a.q_stride;
    const std::int64_t next_rows = smaller(16, a.tokens - first - i - kTile);
    float *row_p = p + i * kTile, *row_ds = ds + i * kTile;
    product<Start::zero>(rows, vectors_for(columns), {q + i * e, e, 1}, tile.keys_transposed, kTile,
                         e, {row_p, kTile});
    prefetch_tile(a.q + next, a.q_stride, next_rows, e);
    product<Start::zero>(rows, vectors_for(columns), {dout + i * e, e, 1}, tile.values_transposed,
                         kTile, e, {row_ds, kTile});
    prefetch_tile(a.dout + next, a.q_stride, next_rows, e);
    for (std::int64_t r = 0; r < rows; ++r) {
      softmax_backward(row_p + r * kTile, row_ds + r * kTile, diagonal ? i + r + 1 : columns,
                       columns, a.scale, a.logsumexp[row_at + r], a.delta[row_at + r]);
    }
    product<Start::add>(rows, e / 16, {row_ds, kTile, 1}, tile.keys, e, columns,
                        {a.dq + at + i * a.q_stride, a.q_stride});
    prefetch_tile(a.dq + next, a.q_stride, next_rows, e);
  }
  const std::int64_t step = diagonal ? 16 : kTile;
  for (std::int64_t j = 0; j < tile.count; j += step) {
    const std::int64_t rows = smaller(step, tile.count - j), skip = diagonal ? j : 0;
    const std::int64_t to = (tile.first + j) * a.kv_stride;
    product<Start::add>(rows, e / 16, {p + skip * kTile + j, 1, kTile}, dout + skip * e, e,
                        queries - skip, {a.dv + to, a.kv_stride});
    product<Start::add>(rows, e / 16, {ds + skip * kTile + j, 1, kTile}, q + skip * e, e,
                        queries - skip, {a.dk + to, a.kv_stride});
  }
}

void attention_backward(const AttentionBackward& a) {
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    for (std::int64_t head = 0; head < a.heads; ++head) {
      const std::int64_t at = t * a.q_stride + head * a.head_dim, ahead = 16 * a.q_stride;
      prefetch_tile(a.dout + at + ahead, a.q_stride, t + 16 < a.tokens, a.head_dim);
      prefetch_tile(a.out + at + ahead, a.q_stride, t + 16 < a.tokens, a.head_dim);
      a.delta[head * a.tokens + t] = dot_row(a.dout + at, a.out + at, a.head_dim);
    }
    fill(a.dq + t * a.q_stride, a.heads * a.head_dim, 0.0f);
    fill(a.dk + t * a.kv_stride, a.head_dim, 0.0f);
    fill(a.dv + t * a.kv_stride, a.head_dim, 0.0f);
  }
  KeyTile tile;
  for (tile.first = 0; tile.first < a.tokens; tile.first += kTile) {
    tile.count = smaller(kTile, a.tokens - tile.first);
    const std::int64_t kv = tile.first * a.kv_stride;
    pack_tile(a.k + kv, a.kv_stride, tile.count, a.head_dim, tile.keys);
    transpose_tile(tile.keys, a.head_dim, tile.count, a.head_dim, tile.keys_transposed);
    transpose_tile(a.v + kv, a.kv_stride, tile.count, a.head_dim, tile.values_transposed);
    for (std::int64_t head = 0; head < a.heads; ++head) {
      for (std::int64_t first = tile.first; first < a.tokens; first += kTile) {
        attend_backward(a, head, first, smaller(kTile, a.tokens - first), tile);
      }
    }
  }
}

}  // namespace
}  // namespace bitnet::cpu
