// SPDX-License-Identifier: MIT
// Causal attention by an online softmax (Milakov & Gimelshein 2018; FlashAttention) over tiles of
// 64 keys: for a block of queries with the queries across the lanes, so that no reduction crosses
// lanes; for one token's query heads with the keys across the lanes, as a cache holds them. Both
// follow the one order of float_kernels.h, so a query's bits depend on its position alone. Included
// by each float_<isa>.cpp after lanes_products.h.
#pragma once

#include <type_traits>

#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

// See kExp2Polynomial; for x <= 0 up to rounding. 0 below kExp2Underflow; NaN stays NaN.
inline Lanes exp2(Lanes x) {
  const Lanes shifted = x + set1(kExp2Shift);
  const Lanes r = x - (shifted - set1(kExp2Shift));
  Lanes p = set1(kExp2Polynomial[4]);
  p = fma(p, r, set1(kExp2Polynomial[3]));
  p = fma(p, r, set1(kExp2Polynomial[2]));
  p = fma(p, r, set1(kExp2Polynomial[1]));
  p = fma(p, r, set1(kExp2Polynomial[0]));
  p = fma(p, r, set1(1.0f));
  return multiply_unless_below(x, set1(kExp2Underflow), p, shift_to_exponent(shifted));
}

// The running softmax of up to kTile rows, in powers of two.
struct alignas(64) SoftmaxState {
  float peak[kTile];   // the largest score so far, times scale * log2(e)
  float total[kTile];  // sum of exp2(score - peak)
  float carry[kTile];  // what takes earlier sums over to the latest peak
};

void begin(SoftmaxState& state) {
  for (int i = 0; i < kTile; i += 16) {
    store(state.peak + i, set1(-__builtin_inff()));
    store(state.total + i, zero());
  }
}

// Takes in a tile's largest raw scores for 16 rows; returns the new peaks.
inline Lanes raise_peak(Lanes largest, float scale, float* peak, float* carry) {
  const Lanes old = load(peak);
  const Lanes raised = max(old, largest * set1(scale));
  store(carry, exp2(old - raised));
  store(peak, raised);
  return raised;
}

inline float log_sum_exp(float peak, float total) {
  constexpr double kLn2 = 0.693147180559945309417;
  return static_cast<float>(static_cast<double>(peak) * kLn2 +
                            __builtin_log(static_cast<double>(total)));
}

// The tree sum of 16 rows of 16 columns, kTile apart.
inline Lanes sum_rows(const float* x) {
  Lanes sum[8];
  for (int l = 0; l < 8; ++l) sum[l] = load(x + l * kTile) + load(x + (l + 8) * kTile);
  for (int l = 0; l < 4; ++l) sum[l] = sum[l] + sum[l + 4];
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

// 16 queries' raw scores, s[key * kTile + query], turn into exp2(scale * score - peak). Queries
// from key - lead on see a key; the rows up to the next multiple of 16 become zeros. scale includes
// log2(e).
inline void softmax_columns(float* s, std::int64_t keys, std::int64_t lead, float scale,
                            float* peak, float* total, float* carry) {
  const Lanes lowest = set1(-__builtin_inff());
  Lanes largest = lowest, others[3] = {lowest, lowest, lowest};  // four chains
  std::int64_t j = 0;
  for (; j + 4 <= smaller(keys, lead + 1); j += 4) {
    largest = max(largest, load(s + j * kTile));
    for (int i = 0; i < 3; ++i) others[i] = max(others[i], load(s + (j + 1 + i) * kTile));
  }
  for (; j < keys; ++j) {
    Lanes seen = load(s + j * kTile);
    if (j > lead) seen = blend_first(First{static_cast<int>(j - lead)}, lowest, seen);
    store(s + j * kTile, seen);
    largest = max(largest, seen);
  }
  largest = max(max(largest, others[0]), max(others[1], others[2]));
  for (; j % 16 != 0; ++j) store(s + j * kTile, lowest);
  const Lanes offset = zero() - raise_peak(largest, scale, peak, carry);
  Lanes sum = load(total) * load(carry);
  for (std::int64_t group = 0; group < j; group += 16) {
    float* rows = s + group * kTile;
    for (int i = 0; i < 16; ++i) {
      store(rows + i * kTile, exp2(fma(load(rows + i * kTile), set1(scale), offset)));
    }
    sum = sum + sum_rows(rows);
  }
  store(total, sum);
}

// A tile of one head's keys: as rows, or interleaved with groups of 16 keys so far apart.
struct BlockKeys {
  const float* data;
  std::int64_t row;     // of keys as rows; 0: they are interleaved
  std::int64_t groups;  // from one group of interleaved keys to the next
};

// Raw scores s[key * kTile + query] of the keys [first, end) for `vectors` vectors of 16 queries.
void block_scores(const BlockKeys& keys, std::int64_t first, std::int64_t end, const float* queries,
                  std::int64_t vectors, std::int64_t head_dim, float* s) {
  for (std::int64_t next; first < end; first = next) {
    next = keys.row > 0
               ? end
               : smaller(end, first / kInterleavedKeys * kInterleavedKeys + kInterleavedKeys);
    const Factor left =
        keys.row > 0
            ? Factor{keys.data + first * keys.row, keys.row, 1}
            : Factor{keys.data + first / kInterleavedKeys * keys.groups + first % kInterleavedKeys,
                     1, kInterleavedKeys};
    product<Start::zero>(next - first, vectors, left, queries, kTile, head_dim,
                         {s + first * kTile, kTile});
  }
}

// Those of the tile that holds the queries' own positions: a vector of 16 queries only meets the keys
// that its last one sees.
void diagonal_scores(const BlockKeys& keys, std::int64_t count, const float* queries,
                     std::int64_t vectors, std::int64_t offset, std::int64_t head_dim, float* s) {
  std::int64_t first = 0;
  for (std::int64_t l = 0; l < vectors; ++l) {  // keys that vector l meets and l - 1 does not
    const std::int64_t end = smaller(count, offset + 16 * l + 16);
    block_scores(keys, first, end, queries + 16 * l, vectors - l, head_dim, s + 16 * l);
    first = end;
  }
}

// `count` keys of a tile from k on, as they are, or halves widened into `widened` [kTile, head_dim].
inline BlockKeys block_keys(const AttentionBlock& a, const float* k, std::int64_t, float*) {
  return {k, a.interleaved ? 0 : a.kv_stride, kInterleavedKeys * a.kv_stride};
}
inline BlockKeys block_keys(const AttentionBlock& a, const std::uint16_t* k, std::int64_t count,
                            float* widened) {
  if (a.interleaved) {
    for (std::int64_t j = 0; j < count; j += kInterleavedKeys) {
      pack_tile(k + j * a.kv_stride, kInterleavedKeys, a.head_dim, kInterleavedKeys,
                widened + j * a.head_dim);
    }
  } else {
    pack_tile(k, a.kv_stride, count, a.head_dim, widened);
  }
  return {widened, a.interleaved ? 0 : a.head_dim, kInterleavedKeys * a.head_dim};
}

template <typename Element>
void attend_block(const AttentionBlock& a, const Element* k, const Element* v) {
  constexpr bool kWiden = sizeof(Element) != sizeof(float);
  alignas(64) float queries[kMaxHeadDim * kTile];  // transposed
  alignas(64) float values[kTile * kMaxHeadDim], sums[kTile * kMaxHeadDim], p[kTile * kTile];
  alignas(64) float widened[kWiden ? kTile * kMaxHeadDim : 16];
  SoftmaxState state;
  begin(state);
  fill(sums, a.queries * a.head_dim, 0.0f);
  transpose_tile(a.q, a.q_stride, a.queries, a.head_dim, queries);
  const std::int64_t offset = a.first_position % kTile, vectors = vectors_for(a.queries);
  const float scale = a.scale * kLog2E;
  for (std::int64_t first = 0; first <= a.first_position; first += kTile) {
    const bool diagonal = first + kTile > a.first_position;
    const std::int64_t count = diagonal ? offset + a.queries : kTile;
    const BlockKeys keys = block_keys(a, k + first * a.kv_stride, count, widened);
    pack_tile(v + first * a.kv_stride, a.kv_stride, count, a.head_dim, values);
    const std::int64_t next = smaller(kTile, a.first_position + a.queries - (first + kTile));
    // Turned keys are one stretch, which the hardware foresees.
    prefetch_tile(k + (first + kTile) * a.kv_stride, a.kv_stride, a.interleaved ? 0 : next,
                  a.head_dim);
    if (diagonal) {
      diagonal_scores(keys, count, queries, vectors, offset, a.head_dim, p);
    } else {
      block_scores(keys, 0, count, queries, vectors, a.head_dim, p);
    }
    prefetch_tile(v + (first + kTile) * a.kv_stride, a.kv_stride, next, a.head_dim);
    for (std::int64_t i = 0; i < a.queries; i += 16) {
      softmax_columns(p + i, diagonal ? smaller(count, offset + i + 16) : count,
                      diagonal ? offset + i : count, scale, state.peak + i, state.total + i,
                      state.carry + i);
    }
    const Factor weights{p, 1, kTile};
    const Target out{sums, a.head_dim, state.carry};
    if (diagonal) {
      product<Start::scale, Terms::rising>(a.queries, a.head_dim / 16, weights, values, a.head_dim,
                                           offset + 1, out);
    } else {
      product<Start::scale>(a.queries, a.head_dim / 16, weights, values, a.head_dim, kTile, out);
    }
  }
  for (std::int64_t i = 0; i < a.queries; ++i) {
    const Lanes total = set1(state.total[i]);
    for (std::int64_t e = 0; e < a.head_dim; e += 16) {
      store(a.out + i * a.q_stride + e, load(sums + i * a.head_dim + e) / total);
    }
    if (a.logsumexp != nullptr) a.logsumexp[i] = log_sum_exp(state.peak[i], state.total[i]);
  }
}

void attention_block(const AttentionBlock& a) {
  if (a.half) {
    attend_block(a, static_cast<const std::uint16_t*>(a.k), static_cast<const std::uint16_t*>(a.v));
  } else {
    attend_block(a, static_cast<const float*>(a.k), static_cast<const float*>(a.v));
  }
}

// As softmax_columns, for one row of scores with the keys across the lanes. `offset` is minus the
// peak. Returns `total` with the weights added.
inline float softmax_row(float* s, std::int64_t keys, float scale, float offset, float total) {
  Lanes p[kTile / 16];
  for (auto& lanes : p) lanes = zero();
  each_lanes(keys, [&](std::int64_t j, auto part) {
    p[j / 16] = exp2(fma(load(s + j, part, set1(-__builtin_inff())), set1(scale), set1(offset)));
    store(s + j, p[j / 16]);
  });
  float sums[kTile / 16];
  sum4(p, sums);
  for (const float sum : sums) total += sum;
  return total;
}

// Elements (each of 16 keys: a line, of fp16 half a line) that are fetched before they are used, of all the
// groups worked on together, at most as far as the next groups: in each group the hardware begins anew.
constexpr std::int64_t kKeyElementsAhead = 128;

// scores[h * kTile + 16 * g + j] = q_h · k_j of kGroups groups of 16 interleaved keys and kHeads heads.
// Meanwhile the next groups are begun to be fetched, and `ahead`.
template <int kHeads, int kGroups, typename Element>
void score_groups(const float* q, const Element* k, std::int64_t groups, std::int64_t head_dim,
                  float* scores, const RowsAhead<Element>& ahead) {
  Lanes sums[kHeads][kGroups];
  for (auto& of_head : sums) {
    for (Lanes& sum : of_head) sum = zero();
  }
  const std::int64_t rows_ahead = smaller(kKeyElementsAhead / kGroups, head_dim);
  for (std::int64_t e = 0; e < head_dim; ++e) {
    ahead.fetch_row(e, head_dim);
    const std::int64_t later = e + rows_ahead;
    const Element* const fetched =
        later < head_dim ? k + later * kInterleavedKeys
                         : k + kGroups * groups + (later - head_dim) * kInterleavedKeys;
    Lanes elements[kGroups];
    for (int g = 0; g < kGroups; ++g) {
      __builtin_prefetch(fetched + g * groups, 0, 2);
      elements[g] = load(k + e * kInterleavedKeys + g * groups);
    }
    for (int h = 0; h < kHeads; ++h) {
      const Lanes factor = set1(q[h * head_dim + e]);
      for (int g = 0; g < kGroups; ++g) sums[h][g] = fma(factor, elements[g], sums[h][g]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int g = 0; g < kGroups; ++g) store(scores + h * kTile + 16 * g, sums[h][g]);
  }
}

// The same for all groups that hold the `count` keys of a tile (nothing that comes of others is
// used): as many at a time as make four chains of sums, while so many are left.
template <int kHeads, typename Element>
void score_heads(const float* q, const Element* k, std::int64_t groups, std::int64_t count,
                 std::int64_t head_dim, float* scores, RowsAhead<Element>& ahead) {
  std::int64_t j = 0;
  const auto score = [&](auto together) {
    constexpr int kGroups = decltype(together)::value;
    for (; j + 16 * (kGroups - 1) < count; j += 16 * kGroups) {
      score_groups<kHeads, kGroups>(q, k + j / 16 * groups, groups, head_dim, scores + j, ahead);
      ahead.clear();
    }
  };
  if constexpr (kHeads == 1) score(std::integral_constant<int, 4>());
  if constexpr (kHeads <= 2) score(std::integral_constant<int, 2>());
  score(std::integral_constant<int, 1>());
}

// And for any number of heads.
template <typename Element>
void token_scores(const AttentionToken& a, const Element* k, std::int64_t count, float* scores,
                  RowsAhead<Element> ahead) {
  const std::int64_t groups = kInterleavedKeys * a.kv_stride, e = a.head_dim;
  std::int64_t h = 0;
  for (; h + 4 <= a.heads; h += 4) {
    score_heads<4>(a.q + h * e, k, groups, count, e, scores + h * kTile, ahead);
  }
  for (; h + 2 <= a.heads; h += 2) {
    score_heads<2>(a.q + h * e, k, groups, count, e, scores + h * kTile, ahead);
  }
  if (h < a.heads) score_heads<1>(a.q + h * e, k, groups, count, e, scores + h * kTile, ahead);
}

// Values are worked on 16 rows at a time. Meanwhile the 16 rows behind them are fetched; of heads
// with as many elements as a tile has keys, a group of the next tile's keys, since all their values
// were fetched with the scores, one with each element. (Of larger heads so much at once is slower
// from memory.)
constexpr std::int64_t kBlockRows = 16;
static_assert(kBlockRows == kInterleavedKeys);

template <typename Element>
void attend_token(const AttentionToken& a, const Element* k, const Element* v) {
  alignas(64) float sums[kTokenHeads * kMaxHeadDim], scores[kTokenHeads * kTile];
  alignas(64) float largest[kTokenHeads];
  SoftmaxState state;
  begin(state);
  fill(sums, a.heads * a.head_dim, 0.0f);
  fill(largest, kTokenHeads, 0.0f);
  const float scale = a.scale * kLog2E;
  const std::int64_t rows_ahead = a.head_dim == kTile ? kTile : kBlockRows;
  for (std::int64_t first = 0; first <= a.position; first += kTile) {
    const std::int64_t left = a.position + 1 - first, count = smaller(kTile, left);
    const Element *const keys = k + first * a.kv_stride, *const values = v + first * a.kv_stride;
    token_scores(a, keys, count, scores,
                 RowsAhead<Element>{values, a.kv_stride, smaller(rows_ahead, count)});
    for (std::int64_t h = 0; h < a.heads; ++h) {
      const Lanes lowest = set1(-__builtin_inff());
      Lanes most = lowest;
      each_lanes(count, [&](std::int64_t j, auto part) {
        most = max(most, load(scores + h * kTile + j, part, lowest));
      });
      largest[h] = max_lane(most);
    }
    raise_peak(load(largest), scale, state.peak, state.carry);
    for (std::int64_t h = 0; h < a.heads; ++h) {
      state.total[h] = softmax_row(scores + h * kTile, count, scale, 0.0f - state.peak[h],
                                   state.total[h] * state.carry[h]);
    }
    for (std::int64_t j = 0; j < count; j += kBlockRows) {
      const std::int64_t next = j + rows_ahead;  // in this tile or, a group of keys, behind it
      RowsAhead<Element> ahead{values + next * a.kv_stride, a.kv_stride,
                               smaller(kBlockRows, count - next)};
      if (rows_ahead == kTile)
        ahead = {keys + next * a.kv_stride, a.head_dim, next < left ? kBlockRows : 0};
      const Factor weights{scores + j, kTile, 1};
      const Element* const rows = values + j * a.kv_stride;
      const std::int64_t n = smaller(kBlockRows, count - j), vectors = a.head_dim / 16;
      if (j == 0) {
        const Target out{sums, a.head_dim, state.carry};
        product<Start::scale>(a.heads, vectors, weights, rows, a.kv_stride, n, out, ahead);
      } else {
        const Target out{sums, a.head_dim};
        product<Start::add>(a.heads, vectors, weights, rows, a.kv_stride, n, out, ahead);
      }
    }
  }
  for (std::int64_t h = 0; h < a.heads; ++h) {
    for (std::int64_t e = 0; e < a.head_dim; e += 16) {
      store(a.out + h * a.head_dim + e, load(sums + h * a.head_dim + e) / set1(state.total[h]));
    }
    if (a.logsumexp != nullptr) {
      a.logsumexp[h * a.logsumexp_stride] = log_sum_exp(state.peak[h], state.total[h]);
    }
  }
}

void attention_token(const AttentionToken& a) {
  if (a.half) {
    attend_token(a, static_cast<const std::uint16_t*>(a.k), static_cast<const std::uint16_t*>(a.v));
  } else {
    attend_token(a, static_cast<const float*>(a.k), static_cast<const float*>(a.v));
  }
}

template <typename Element>
void interleave_rows(const float* k, std::int64_t stride, std::int64_t count, std::int64_t head_dim,
                     std::int64_t first, Element* interleaved) {
  alignas(64) float square[16 * 16];
  alignas(64) Element row[16];
  for (std::int64_t e = 0; e < head_dim; e += 16, interleaved += 16 * kInterleavedKeys) {
    if (count == kInterleavedKeys) {
      const float* rows[16];
      for (std::int64_t i = 0; i < 16; ++i) rows[i] = k + i * stride + e;
      transpose(rows, square, 16);
      for (std::int64_t i = 0; i < 16; ++i)
        store(interleaved + i * kInterleavedKeys, load(square + 16 * i));
      continue;
    }
    for (std::int64_t j = 0; j < count; ++j) {
      store(row, load(k + j * stride + e));
      for (std::int64_t i = 0; i < 16; ++i) interleaved[i * kInterleavedKeys + first + j] = row[i];
    }
  }
}

void interleave_keys(const float* k, std::int64_t k_stride, std::int64_t count,
                     std::int64_t head_dim, std::int64_t first, bool half, void* interleaved) {
  if (half) {
    interleave_rows(k, k_stride, count, head_dim, first, static_cast<std::uint16_t*>(interleaved));
  } else {
    interleave_rows(k, k_stride, count, head_dim, first, static_cast<float*>(interleaved));
  }
}

}  // namespace
}  // namespace bitnet::cpu
