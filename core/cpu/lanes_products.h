// SPDX-License-Identifier: MIT
// The fp32 products inside attention, c = a · b, held in a register tile of rows x vectors of 16
// columns. Each element of c is one fma chain in ascending order, so a row's bits do not depend on
// the rows and columns beside it. Included by each float_<isa>.cpp after lanes_math.h.
#pragma once

#include <cstdint>

#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

constexpr int kTile = static_cast<int>(kAttentionTile);

constexpr std::int64_t vectors_for(std::int64_t columns) { return (columns + 15) / 16; }
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// Element (r, i) of the left factor is data[r * row + i * step].
struct Factor {
  const float* data;
  std::int64_t row, step;
};

// Where the chains of a row start: at 0, at c[r], at factors[r] * c[r].
enum class Start { zero, add, scale };

// How many terms the chains of a row have: all n, or row r has n + r (under the causal mask the
// next query sees one key more).
enum class Terms { equal, rising };

struct Target {
  float* data;
  std::int64_t row;
  const float* factors = nullptr;
};

// Rows that are read next, [count, ...], fetched into the second-level cache, row i beside term i of a
// product, among the work on others: a core that asks for many at once waits until memory has taken
// them all.
template <typename Element>
struct RowsAhead {
  const Element* rows;
  std::int64_t stride, count;

  // Inlined, since GCC 12 takes calls of a function that only prefetches for useless; so below.
  [[gnu::always_inline]] void fetch_row(std::int64_t i, std::int64_t elements) const {
    constexpr std::int64_t kLine = 64 / sizeof(Element);
    if (i >= count) return;
    for (std::int64_t e = 0; e < elements; e += kLine) {
      __builtin_prefetch(rows + i * stride + e, 0, 2);
    }
  }
  void skip_columns(std::int64_t elements) { rows += elements; }
  void clear() { count = 0; }
};

struct NothingAhead {
  void fetch_row(std::int64_t, std::int64_t) const {}
  void skip_columns(std::int64_t) {}
  void clear() {}
};

template <int kRows, int kVectors, typename Element>
inline void product_step(const float* left, std::int64_t row, const Element* b, int first_row,
                         Lanes acc[kRows][kVectors]) {
  Lanes right[kVectors];
  for (int l = 0; l < kVectors; ++l) right[l] = load(b + 16 * l);
#pragma GCC unroll 16
  for (int r = first_row; r < kRows; ++r) {
    const Lanes factor = set1(left[r * row]);
    for (int l = 0; l < kVectors; ++l) acc[r][l] = fma(factor, right[l], acc[r][l]);
  }
}

template <Start kStart, Terms kTerms, int kRows, int kVectors, typename Element, typename Ahead>
inline void product_group(Factor a, const Element* b, std::int64_t b_row, std::int64_t n, Target c,
                          const Ahead& ahead) {
  Lanes acc[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    for (int l = 0; l < kVectors; ++l) {
      acc[r][l] = kStart == Start::zero ? zero() : load(c.data + r * c.row + 16 * l);
      if constexpr (kStart == Start::scale) acc[r][l] = acc[r][l] * set1(c.factors[r]);
    }
  }
  for (std::int64_t i = 0; i < n; ++i, a.data += a.step, b += b_row) {
    ahead.fetch_row(i, 16 * kVectors);
    product_step<kRows, kVectors>(a.data, a.row, b, 0, acc);
  }
  if constexpr (kTerms == Terms::rising) {
#pragma GCC unroll 16
    for (int i = 1; i < kRows; ++i, a.data += a.step, b += b_row) {
      product_step<kRows, kVectors>(a.data, a.row, b, i, acc);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    for (int l = 0; l < kVectors; ++l) store(c.data + r * c.row + 16 * l, acc[r][l]);
  }
}

// Groups of kRows rows, and what is left in smaller ones.
template <Start kStart, Terms kTerms, int kRows, int kVectors, typename Element, typename Ahead>
inline void product_rows(std::int64_t rows, Factor a, const Element* b, std::int64_t b_row,
                         std::int64_t n, Target c, Ahead ahead) {
  for (; rows >= kRows; rows -= kRows) {
    product_group<kStart, kTerms, kRows, kVectors>(a, b, b_row, n, c, ahead);
    ahead.clear();
    a.data += kRows * a.row;
    c.data += kRows * c.row;
    if constexpr (kStart == Start::scale) c.factors += kRows;
    if constexpr (kTerms == Terms::rising) n += kRows;
  }
  if constexpr (kRows > 1) {
    constexpr int kFewer = kRows == 6 ? 4 : kRows / 2;
    if (rows > 0) product_rows<kStart, kTerms, kFewer, kVectors>(rows, a, b, b_row, n, c, ahead);
  }
}

// c = a · b for `rows` rows and `vectors` vectors; element (i, column) of b is b[i * b_row +
// column], fp32 or a half that is widened. Meanwhile `ahead` is fetched, of as many columns.
template <Start kStart, Terms kTerms = Terms::equal, typename Element,
          typename Ahead = NothingAhead>
void product(std::int64_t rows, std::int64_t vectors, Factor a, const Element* b,
             std::int64_t b_row, std::int64_t n, Target c, Ahead ahead = {}) {
  for (; vectors >= kGroupVectors; vectors -= kGroupVectors) {
    product_rows<kStart, kTerms, kGroupRows[kGroupVectors - 1], kGroupVectors>(rows, a, b, b_row, n,
                                                                               c, ahead);
    ahead.skip_columns(16 * kGroupVectors);
    b += 16 * kGroupVectors;
    c.data += 16 * kGroupVectors;
  }
  if constexpr (kGroupVectors == 4) {
    if (vectors == 3)
      product_rows<kStart, kTerms, kGroupRows[2], 3>(rows, a, b, b_row, n, c, ahead);
    if (vectors == 2)
      product_rows<kStart, kTerms, kGroupRows[1], 2>(rows, a, b, b_row, n, c, ahead);
    if (vectors == 1)
      product_rows<kStart, kTerms, kGroupRows[0], 1>(rows, a, b, b_row, n, c, ahead);
  }
}

// Asks for `count` rows of head_dim elements before they are needed: pieces of a token's row are
// too short and too far apart for the hardware to foresee. Inlined as fetch_row() is.
template <typename Element>
[[gnu::always_inline]] inline void prefetch_tile(const Element* rows, std::int64_t stride,
                                                 std::int64_t count, std::int64_t head_dim) {
  constexpr std::int64_t kLine = 64 / sizeof(Element);
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t e = 0; e < head_dim; e += kLine) {
      __builtin_prefetch(rows + i * stride + e);
    }
  }
}

// packed [count, head_dim] = rows. Rows as far apart as a token's width would fall into few sets of
// the first-level cache.
template <typename Element>
void pack_tile(const Element* rows, std::int64_t stride, std::int64_t count, std::int64_t head_dim,
               float* packed) {
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t e = 0; e < head_dim; e += 16) {
      store(packed + i * head_dim + e, load(rows + i * stride + e));
    }
  }
}

// transposed[e * kTile + j] = rows[j][e] for j < count; up to the next multiple of 16 the last row
// is repeated (nothing that comes of it is used).
void transpose_tile(const float* rows, std::int64_t stride, std::int64_t count,
                    std::int64_t head_dim, float* transposed) {
  for (std::int64_t j = 0; j < count; j += 16) {
    const float* block[16];
    for (std::int64_t i = 0; i < 16; ++i) block[i] = rows + smaller(j + i, count - 1) * stride;
    for (std::int64_t e = 0; e < head_dim; e += 16) {
      transpose(block, transposed + e * kTile + j, kTile);
      for (std::int64_t i = 0; i < 16; ++i) block[i] += 16;
    }
  }
}

}  // namespace
}  // namespace bitnet::cpu
