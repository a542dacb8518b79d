// SPDX-License-Identifier: MIT
// Panel kernels for AMX. Sixteen steps of a panel are four tiles of 16 outputs, 16 rows are one
// tile, and tdpbssd multiplies two tiles of signed bytes: panels hold trits -1..1, or the values
// themselves, and no sums of rows are needed.
#include <immintrin.h>

#include <cstdint>

#include "core/cpu/amx_tiles.h"
#include "core/cpu/lanes_panel_avx512.h"
#include "core/cpu/panel_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint8_t;

constexpr int64_t kTileSteps = 16;               // steps of a tile, 64 elements of the contraction
constexpr int64_t kBlockRows = 2 * kTileRows;    // of a 2 x 2 block of tiles,
constexpr int64_t kBlockOutputs = 32;            //   and its outputs
constexpr int64_t kAccStride = kPanelWidth * 4;  // bytes of a row of sums

// --- products ---

// Tiles 0 to 3 hold the sums [row tile][output tile], 4 and 5 rows, 6 and 7 the panel.
// `rows` <= kBlockRows of them.
constexpr TileConfig tiles_for(int rows) {
  const int first = rows < kTileRows ? rows : kTileRows, second = rows - first;
  TileConfig config;
  config.set(0, first);
  config.set(1, first);
  config.set(4, first);
  if (second > 0) {
    config.set(2, second);
    config.set(3, second);
    config.set(5, second);
  }
  config.set(6, kTileSteps);
  config.set(7, kTileSteps);
  return config;
}

// Made beforehand: one that has just been written would hold the processor up.
struct TileConfigs {
  TileConfig of[kBlockRows + 1];  // a number of rows, from 1 on
  constexpr TileConfigs() {
    for (int rows = 1; rows <= kBlockRows; ++rows) of[rows] = tiles_for(rows);
  }
};
constexpr TileConfigs kTileConfigs;

// Sums of one or two tiles of rows by two of outputs, over `tile_count` tiles of the contraction.
template <bool kTwo>
void add_products(const int8_t* panel, const int8_t* rows, int64_t row_stride) {
  load_tile<6>(panel, kPanelStep);
  load_tile<4>(rows, row_stride);
  add_tile_products<0, 4, 6>();
  load_tile<7>(panel + kTileBytes, kPanelStep);
  add_tile_products<1, 4, 7>();
  if constexpr (kTwo) {
    load_tile<5>(rows + kTileRows * row_stride, row_stride);
    add_tile_products<2, 5, 6>();
    add_tile_products<3, 5, 7>();
  }
}

template <bool kTwo>
void start_sums(bool accumulate, const int32_t* acc) {
  if (accumulate) {
    load_tile<0>(acc, kAccStride);
    load_tile<1>(acc + 16, kAccStride);
    if constexpr (kTwo) {
      load_tile<2>(acc + kTileRows * kPanelWidth, kAccStride);
      load_tile<3>(acc + kTileRows * kPanelWidth + 16, kAccStride);
    }
  } else {
    clear_tile<0>();
    clear_tile<1>();
    if constexpr (kTwo) {
      clear_tile<2>();
      clear_tile<3>();
    }
  }
}

template <bool kTwo>
void store_sums(int32_t* acc) {
  store_tile<0>(acc, kAccStride);
  store_tile<1>(acc + 16, kAccStride);
  if constexpr (kTwo) {
    store_tile<2>(acc + kTileRows * kPanelWidth, kAccStride);
    store_tile<3>(acc + kTileRows * kPanelWidth + 16, kAccStride);
  }
}

// The last steps of a contraction, filled up with zeros to a tile.
struct Tail {
  alignas(64) int8_t panel[kTileSteps * kPanelStep];
  alignas(64) int8_t rows[kBlockRows * kTileBytes];
  int64_t steps;

  Tail(const int8_t* from, int64_t steps_) : steps(steps_) {
    for (int64_t i = 0; i < kTileSteps * kPanelLines; ++i) {
      _mm512_store_si512(panel + 64 * i, i < steps * kPanelLines ? _mm512_loadu_si512(from + 64 * i)
                                                                 : _mm512_setzero_si512());
    }
  }
  void take_rows(const int8_t* from, int64_t row_stride, int64_t count) {
    const auto elements = static_cast<__mmask16>((1u << steps) - 1);
    for (int64_t t = 0; t < count; ++t) {
      _mm512_store_si512(rows + t * kTileBytes,
                         _mm512_maskz_loadu_epi32(elements, from + t * row_stride));
    }
  }
};

// At most kBlockRows rows, kTwo: more than a tile of them.
template <bool kTwo>
void row_block(const int8_t* panel, int64_t tiles, Tail* tail, const int8_t* rows,
               int64_t row_stride, int64_t row_count, bool accumulate, int32_t* acc) {
  if (tail != nullptr) tail->take_rows(rows + tiles * kTileBytes, row_stride, row_count);
  for (int64_t output = 0; output < kPanelWidth; output += kBlockOutputs) {
    start_sums<kTwo>(accumulate, acc + output);
    for (int64_t k = 0; k < tiles; ++k) {
      add_products<kTwo>(panel + k * kTileSteps * kPanelStep + output * 4, rows + k * kTileBytes,
                         row_stride);
    }
    if (tail != nullptr) add_products<kTwo>(tail->panel + output * 4, tail->rows, kTileBytes);
    store_sums<kTwo>(acc + output);
  }
}

// Configuring waits for all tiles in use and takes as long as a dozen tile products: whole blocks
// find what begin_products() has set.
void row_blocks(const int8_t* panel, int64_t tiles, Tail* tail, const int8_t* rows,
                int64_t row_stride, int64_t row_count, bool accumulate, int32_t* acc) {
  int64_t t = 0;
  for (; t + kBlockRows <= row_count; t += kBlockRows) {
    row_block<true>(panel, tiles, tail, rows + t * row_stride, row_stride, kBlockRows, accumulate,
                    acc + t * kPanelWidth);
  }
  const int64_t rest = row_count - t;
  if (rest == 0) return;
  configure_tiles(kTileConfigs.of[rest]);
  const auto block = rest > kTileRows ? row_block<true> : row_block<false>;
  block(panel, tiles, tail, rows + t * row_stride, row_stride, rest, accumulate,
        acc + t * kPanelWidth);
  configure_tiles(kTileConfigs.of[kBlockRows]);
}

void begin_products() { configure_tiles(kTileConfigs.of[kBlockRows]); }
void end_products() { release_tiles(); }

void signed_products(const int8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                     const int32_t*, int64_t row_count, bool accumulate, int32_t* acc) {
  const int64_t tiles = steps / kTileSteps, rest = steps % kTileSteps;
  if (rest == 0) {
    return row_blocks(panel, tiles, nullptr, rows, row_stride, row_count, accumulate, acc);
  }
  Tail tail(panel + tiles * kTileSteps * kPanelStep, rest);
  row_blocks(panel, tiles, &tail, rows, row_stride, row_count, accumulate, acc);
}

void ternary_products(const uint8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                      const int32_t* row_sums, int64_t row_count, bool accumulate, int32_t* acc) {
  signed_products(reinterpret_cast<const int8_t*>(panel), steps, rows, row_stride, row_sums,
                  row_count, accumulate, acc);
}

// --- panels ---

// Trits as signed bytes, values as they are. A product of each byte with a matrix of bits, and an
// exclusive or: a code's bits come to the bottom, and from its two bits f (high) and e those of
// trit = code - 1, which is 0xff for 0, 0 for 1 and 1 for 2:
//   bit 0 = 1 ^ e,  bits 1 to 7 = 1 ^ e ^ f
struct SignedForm {
  // Byte 7 - b of the matrix says which bits of the input make bit b of the result.
  static __m512i select(__m512i x, int code) {
    const std::uint64_t e = std::uint64_t{1} << (2 * code), ef = e * 3;
    const std::uint64_t matrix = (e << 56) | (ef * 0x0001010101010101);
    return _mm512_gf2p8affine_epi64_epi8(x, _mm512_set1_epi64(static_cast<long long>(matrix)),
                                         0xff);
  }
  template <int kQuarter>
  static __m512i trits(__m512i packed) {
    return select(packed, kQuarter);
  }
  static __m512i low_trits(__m512i codes) { return select(codes, 0); }
  static __m512i values(__m512i x) { return x; }
};

}  // namespace

const PanelKernels kPanelAmx = {
    .name = "amx",
    .block_rows = kBlockRows,
    .begin_products = begin_products,
    .end_products = end_products,
    .ternary_products = ternary_products,
    .signed_products = signed_products,
    .row_sums = nullptr,
    .forward_panel = lay_out_forward<SignedForm>,
    .input_gradient_panel = lay_out_input_gradient<SignedForm>,
    .weight_gradient_panel = lay_out_weight_gradient<SignedForm>,
    .store_products = store_panel_products,
};

}  // namespace bitnet::cpu
