// SPDX-License-Identifier: MIT
// Causal attention, forward by an online softmax (Milakov & Gimelshein 2018; FlashAttention) and
// backward from the saved logsumexp, by tiles of 64 keys. Every sum over keys, queries or head_dim
// is one fma chain in ascending order, vectorised over the other index, so a query's bits do not
// depend on which queries are worked on with it. Included by each float_<isa>.cpp after
// lanes_math.h.
#pragma once

#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

constexpr int kTile = static_cast<int>(kAttentionTile);

// Element (r, i) of the left factor of a product is data[r * row + i * step].
struct Factor {
  const float* data;
  std::int64_t row, step;
};

// c[r][l] = fma over i = 0 .. n - 1 of a(r, i) * b[i][l], from c[r][l], or from 0 unless
// `accumulate`.
template <int kRows, int kVectors>
inline void multiply_add_group(Factor a, const float* b, std::int64_t b_row, std::int64_t n,
                               float* c, std::int64_t c_row, bool accumulate) {
  Lanes acc[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int l = 0; l < kVectors; ++l) {
      acc[r][l] = accumulate ? load(c + r * c_row + 16 * l) : zero();
    }
  }
  for (std::int64_t i = 0; i < n; ++i) {
    Lanes right[kVectors];
    for (int l = 0; l < kVectors; ++l) right[l] = load(b + i * b_row + 16 * l);
    for (int r = 0; r < kRows; ++r) {
      const Lanes left = set1(a.data[r * a.row + i * a.step]);
      for (int l = 0; l < kVectors; ++l) acc[r][l] = fma(left, right[l], acc[r][l]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int l = 0; l < kVectors; ++l) store(c + r * c_row + 16 * l, acc[r][l]);
  }
}

template <int kVectors>
inline void multiply_add_rows(std::int64_t rows, Factor a, const float* b, std::int64_t b_row,
                              std::int64_t n, float* c, std::int64_t c_row, bool accumulate) {
  std::int64_t r = 0;
  for (; r + kGroupRows <= rows; r += kGroupRows) {
    multiply_add_group<kGroupRows, kVectors>({a.data + r * a.row, a.row, a.step}, b, b_row, n,
                                             c + r * c_row, c_row, accumulate);
  }
  for (; r < rows; ++r) {
    multiply_add_group<1, kVectors>({a.data + r * a.row, a.row, a.step}, b, b_row, n, c + r * c_row,
                                    c_row, accumulate);
  }
}

// The product for `rows` rows and `vectors` vectors of 16 columns.
void multiply_add(std::int64_t rows, std::int64_t vectors, Factor a, const float* b,
                  std::int64_t b_row, std::int64_t n, float* c, std::int64_t c_row,
                  bool accumulate) {
  std::int64_t l = 0;
  for (; l + kGroupVectors <= vectors; l += kGroupVectors) {
    multiply_add_rows<kGroupVectors>(rows, a, b + 16 * l, b_row, n, c + 16 * l, c_row, accumulate);
  }
  for (; l < vectors; ++l) {
    multiply_add_rows<1>(rows, a, b + 16 * l, b_row, n, c + 16 * l, c_row, accumulate);
  }
}

constexpr std::int64_t vectors_for(std::int64_t columns) { return (columns + 15) / 16; }
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// transposed[e * kTile + j] = rows[j][e] for j < count; up to the next multiple of 16 the last row
// is repeated (the scores of such keys are masked).
void transpose_tile(const float* rows, std::int64_t stride, std::int64_t count,
                    std::int64_t head_dim, float* transposed) {
  for (std::int64_t j = 0; j < count; j += 16) {
    for (std::int64_t e = 0; e < head_dim; e += 16) {
      const float* block[16];
      for (std::int64_t i = 0; i < 16; ++i)
        block[i] = rows + smaller(j + i, count - 1) * stride + e;
      transpose(block, transposed + e * kTile + j, kTile);
    }
  }
}

// packed [count, head_dim] = rows. Rows as far apart as a token's width would fall into few sets of
// the first-level cache.
void pack_tile(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t head_dim,
               float* packed) {
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t e = 0; e < head_dim; e += 16)
      store(packed + i * head_dim + e, load(rows + i * stride + e));
  }
}

// The running softmax of one query.
struct SoftmaxState {
  float largest;  // score so far
  Lanes sum;      // of exp(score - largest), by lanes
};

// Turns `visible` raw scores into exp(scale * score - largest), up to the end of their last vector
// with zeros. Returns the factor that carries earlier sums over to the new largest score.
inline Lanes softmax_step(float* scores, std::int64_t visible, float scale, SoftmaxState& state) {
  const Lanes lowest = set1(-__builtin_inff());
  Lanes tile_largest = lowest;
  each_lanes(visible, [&](std::int64_t j, auto part) {
    const Lanes scaled = load(scores + j, part, lowest) * set1(scale);
    store(scores + j, scaled);
    tile_largest = max(tile_largest, scaled);
  });
  const float peak = max_lane(tile_largest);
  const float largest = state.largest > peak ? state.largest : peak;
  const Lanes correction = exp(set1(state.largest) - set1(largest));
  Lanes sum = state.sum * correction;
  for (std::int64_t j = 0; j < visible; j += 16) {
    const Lanes p = exp(load(scores + j) - set1(largest));
    store(scores + j, p);
    sum = sum + p;
  }
  state = {largest, sum};
  return correction;
}

inline void scale_row(float* x, std::int64_t n, Lanes factor) {
  for (std::int64_t e = 0; e < n; e += 16) store(x + e, load(x + e) * factor);
}

// out += p · v, where row i of p counts for visible + i keys, at most kTile.
inline void add_values(const float* p, std::int64_t rows, std::int64_t visible, const float* v,
                       std::int64_t head_dim, float* out) {
  const std::int64_t vectors = head_dim / 16;
  for (std::int64_t i = 0; i < rows; i += kGroupRows) {
    const std::int64_t group = smaller(kGroupRows, rows - i);
    const std::int64_t common = smaller(kTile, visible + i);
    multiply_add(group, vectors, {p + i * kTile, kTile, 1}, v, head_dim, common, out + i * head_dim,
                 head_dim, true);
    // On the diagonal later queries see more keys.
    for (std::int64_t r = i + 1; r < i + group; ++r) {
      multiply_add(1, vectors, {p + r * kTile + common, kTile, 1}, v + common * head_dim, head_dim,
                   smaller(kTile, visible + r) - common, out + r * head_dim, head_dim, true);
    }
  }
}

void attention(const AttentionForward& a) {
  alignas(64) float keys[kMaxHeadDim * kTile];  // one tile, transposed
  alignas(64) float values[kTile * kMaxHeadDim], sums[kTile * kMaxHeadDim], scores[16 * kTile];
  SoftmaxState state[kTile];
  for (std::int64_t i = 0; i < a.queries; ++i) state[i] = {-__builtin_inff(), zero()};
  fill(sums, a.queries * a.head_dim, 0.0f);
  const std::int64_t end = a.first_position + a.queries;  // keys that the last query sees
  for (std::int64_t first_key = 0; first_key < end; first_key += kTile) {
    const std::int64_t kv = first_key * a.kv_stride, count = smaller(kTile, end - first_key);
    transpose_tile(a.k + kv, a.kv_stride, count, a.head_dim, keys);
    pack_tile(a.v + kv, a.kv_stride, count, a.head_dim, values);
    const std::int64_t first_query =
        first_key > a.first_position ? first_key - a.first_position : 0;
    for (std::int64_t i = first_query; i < a.queries; i += 16) {
      const std::int64_t rows = smaller(16, a.queries - i);
      // Keys of the tile that row i sees; the next row sees one more.
      const std::int64_t visible = a.first_position + i + 1 - first_key;
      const std::int64_t vectors = vectors_for(smaller(kTile, visible + rows - 1));
      multiply_add(rows, vectors, {a.q + i * a.q_stride, a.q_stride, 1}, keys, kTile, a.head_dim,
                   scores, kTile, false);
      for (std::int64_t r = 0; r < rows; ++r) {
        const Lanes correction =
            softmax_step(scores + r * kTile, smaller(kTile, visible + r), a.scale, state[i + r]);
        scale_row(sums + (i + r) * a.head_dim, a.head_dim, correction);
      }
      add_values(scores, rows, visible, values, a.head_dim, sums + i * a.head_dim);
    }
  }
  for (std::int64_t i = 0; i < a.queries; ++i) {
    const float total = sum_lanes(state[i].sum);
    for (std::int64_t e = 0; e < a.head_dim; e += 16) {
      store(a.out + i * a.q_stride + e, load(sums + i * a.head_dim + e) / set1(total));
    }
    if (a.logsumexp != nullptr) {
      a.logsumexp[i] = static_cast<float>(static_cast<double>(state[i].largest) +
                                          __builtin_log(static_cast<double>(total)));
    }
  }
}

// One query's row: from raw scores s and raw dp = dout · v to p = exp(scale s - logsumexp) and ds =
// p (dp - delta) scale, zero where masked.
inline void softmax_backward(float* s, float* dp, std::int64_t visible, std::int64_t columns,
                             float scale, float logsumexp, float delta) {
  for (std::int64_t j = 0; j < columns; j += 16) {
    Lanes p = exp(fma(load(s + j), set1(scale), set1(-logsumexp)));
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

inline float dot_row(const float* a, const float* b, std::int64_t n) {
  Lanes sum = zero();
  for (std::int64_t e = 0; e < n; e += 16) sum = fma(load(a + e), load(b + e), sum);
  return sum_lanes(sum);
}

// One tile of keys with its sums of gradients, [kTile, head_dim] or transposed.
struct alignas(64) KeyTile {
  float keys[kTile * kMaxHeadDim];
  float keys_transposed[kMaxHeadDim * kTile], values_transposed[kMaxHeadDim * kTile];
  float dk[kTile * kMaxHeadDim], dv[kTile * kMaxHeadDim];
  std::int64_t first, count;
};

// Adds what the queries first .. first + queries - 1 of one head give to the tile's dk and dv and
// to dq. On the diagonal, what is masked is left out by groups of 16; within a group it counts as
// zero.
void attend_backward(const AttentionBackward& a, std::int64_t head, std::int64_t first,
                     std::int64_t queries, KeyTile& tile) {
  alignas(64) float p[kTile * kTile], ds[kTile * kTile];
  alignas(64) float q[kTile * kMaxHeadDim], dout[kTile * kMaxHeadDim];
  const std::int64_t at = first * a.q_stride + head * a.head_dim, e = a.head_dim;
  const std::int64_t lead = first - tile.first;  // 0 on the diagonal, else at least kTile
  pack_tile(a.q + at, a.q_stride, queries, e, q);
  pack_tile(a.dout + at, a.q_stride, queries, e, dout);
  for (std::int64_t i = 0; i < queries; i += 16) {
    const std::int64_t rows = smaller(16, queries - i);
    const std::int64_t columns = smaller(tile.count, lead + i + 16);
    float *row_p = p + i * kTile, *row_ds = ds + i * kTile;
    multiply_add(rows, vectors_for(columns), {q + i * e, e, 1}, tile.keys_transposed, kTile, e,
                 row_p, kTile, false);
    multiply_add(rows, vectors_for(columns), {dout + i * e, e, 1}, tile.values_transposed, kTile, e,
                 row_ds, kTile, false);
    for (std::int64_t r = 0; r < rows; ++r) {
      softmax_backward(row_p + r * kTile, row_ds + r * kTile, smaller(tile.count, lead + i + r + 1),
                       columns, a.scale, a.logsumexp[head * a.tokens + first + i + r],
                       dot_row(dout + (i + r) * e, a.out + at + (i + r) * a.q_stride, e));
    }
    multiply_add(rows, e / 16, {row_ds, kTile, 1}, tile.keys, e, columns,
                 a.dq + at + i * a.q_stride, a.q_stride, true);
  }
  for (std::int64_t j = 0; j < tile.count; j += 16) {
    const std::int64_t rows = smaller(16, tile.count - j);
    const std::int64_t skip = lead == 0 ? smaller(j, queries) : 0;
    multiply_add(rows, e / 16, {p + skip * kTile + j, 1, kTile}, dout + skip * e, e, queries - skip,
                 tile.dv + j * e, e, true);
    multiply_add(rows, e / 16, {ds + skip * kTile + j, 1, kTile}, q + skip * e, e, queries - skip,
                 tile.dk + j * e, e, true);
  }
}

void attention_backward(const AttentionBackward& a) {
  KeyTile tile;
  for (std::int64_t t = 0; t < a.tokens; ++t)
    fill(a.dq + t * a.q_stride, a.heads * a.head_dim, 0.0f);
  for (tile.first = 0; tile.first < a.tokens; tile.first += kTile) {
    tile.count = smaller(kTile, a.tokens - tile.first);
    const std::int64_t kv = tile.first * a.kv_stride;
    pack_tile(a.k + kv, a.kv_stride, tile.count, a.head_dim, tile.keys);
    transpose_tile(tile.keys, a.head_dim, tile.count, a.head_dim, tile.keys_transposed);
    transpose_tile(a.v + kv, a.kv_stride, tile.count, a.head_dim, tile.values_transposed);
    fill(tile.dk, tile.count * a.head_dim, 0.0f);
    fill(tile.dv, tile.count * a.head_dim, 0.0f);
    for (std::int64_t head = 0; head < a.heads; ++head) {
      for (std::int64_t first = tile.first; first < a.tokens; first += kTile) {
        attend_backward(a, head, first, smaller(kTile, a.tokens - first), tile);
      }
    }
    for (std::int64_t i = 0; i < tile.count; ++i) {
      for (std::int64_t e = 0; e < a.head_dim; e += 16) {
        store(a.dk + kv + i * a.kv_stride + e, load(tile.dk + i * a.head_dim + e));
        store(a.dv + kv + i * a.kv_stride + e, load(tile.dv + i * a.head_dim + e));
      }
    }
  }
}

}  // namespace
}  // namespace bitnet::cpu
