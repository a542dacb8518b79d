// SPDX-License-Identifier: MIT
// Panel kernels for AVX-512 with VNNI. A step of a panel is four registers of unsigned bytes, each
// multiplied (vpdpbusd) by four signed bytes of a row that a load broadcasts to all outputs.
#include <immintrin.h>

#include <cstdint>

#include "core/cpu/lanes_panel_avx512.h"
#include "core/cpu/panel_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint8_t;

constexpr int kRowBlock = 6;        // 4 lines x 6 rows = 24 accumulators of the 32 registers
constexpr int kSignedOffset = 128;  // a signed panel holds value + 128, to be unsigned

// --- products ---

// sums += panel * row, four neighbours at a time. Not the intrinsic: with 24 accumulators GCC 12
// copies and spills them around each use of it, which halves the speed.
void add_dot(__m512i& sums, __m512i panel, __m512i row) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(panel), "v"(row));
}

// Four bytes of a row for all outputs. From memory, because a broadcast from a register would take
// one of the two ports that multiply.
__m512i broadcast(const int8_t* row) {
  __m512i out;
  asm("vpbroadcastd %1, %0" : "=v"(out) : "m"(*reinterpret_cast<const int8_t(*)[4]>(row)));
  return out;
}

// acc[t][o] = [acc[t][o] +] sum of panel * row - offset * row_sums[t].
template <int kRows>
void row_block(const uint8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
               const int32_t* row_sums, int32_t offset, bool accumulate, int32_t* acc) {
  __m512i sums[kRows][kPanelLines];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
    const auto wrapped =
        static_cast<std::uint32_t>(offset) * static_cast<std::uint32_t>(row_sums[t]);
    const __m512i start = _mm512_set1_epi32(static_cast<int32_t>(0u - wrapped));
#pragma GCC unroll 4
    for (int i = 0; i < kPanelLines; ++i) {
      sums[t][i] = accumulate
                       ? _mm512_add_epi32(start, _mm512_loadu_si512(acc + t * kPanelWidth + 16 * i))
                       : start;
    }
  }
  for (int64_t s = 0; s < steps; ++s) {
    __m512i lines[kPanelLines];
#pragma GCC unroll 4
    for (int i = 0; i < kPanelLines; ++i)
      lines[i] = _mm512_loadu_si512(panel + s * kPanelStep + 64 * i);
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      const __m512i row = broadcast(rows + t * row_stride + 4 * s);
#pragma GCC unroll 4
      for (int i = 0; i < kPanelLines; ++i) add_dot(sums[t][i], lines[i], row);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < kPanelLines; ++i) {
      _mm512_storeu_si512(acc + t * kPanelWidth + 16 * i, sums[t][i]);
    }
  }
}

void products(const uint8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
              const int32_t* row_sums, int32_t offset, int64_t row_count, bool accumulate,
              int32_t* acc) {
  for (; row_count >= kRowBlock; row_count -= kRowBlock) {
    row_block<kRowBlock>(panel, steps, rows, row_stride, row_sums, offset, accumulate, acc);
    rows += kRowBlock * row_stride;
    row_sums += kRowBlock;
    acc += kRowBlock * kPanelWidth;
  }
  switch (row_count) {
    case 1:
      return row_block<1>(panel, steps, rows, row_stride, row_sums, offset, accumulate, acc);
    case 2:
      return row_block<2>(panel, steps, rows, row_stride, row_sums, offset, accumulate, acc);
    case 3:
      return row_block<3>(panel, steps, rows, row_stride, row_sums, offset, accumulate, acc);
    case 4:
      return row_block<4>(panel, steps, rows, row_stride, row_sums, offset, accumulate, acc);
    case 5:
      return row_block<5>(panel, steps, rows, row_stride, row_sums, offset, accumulate, acc);
    default:
      return;
  }
}

void ternary_products(const uint8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                      const int32_t* row_sums, int64_t row_count, bool accumulate, int32_t* acc) {
  products(panel, steps, rows, row_stride, row_sums, 1, row_count, accumulate, acc);
}

void signed_products(const int8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                     const int32_t* row_sums, int64_t row_count, bool accumulate, int32_t* acc) {
  products(reinterpret_cast<const uint8_t*>(panel), steps, rows, row_stride, row_sums,
           kSignedOffset, row_count, accumulate, acc);
}

// The sums of one row, in 16 elements.
__m512i row_elements(const int8_t* row, int64_t columns) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t c = 0; c < columns; c += 64) add_dot(sum, ones, _mm512_loadu_si512(row + c));
  return sum;
}

void row_sums(const int8_t* rows, int64_t row_stride, int64_t columns, int64_t row_count,
              int32_t* sums) {
  int64_t t = 0;
  for (; t + 4 <= row_count; t += 4) {
    __m512i v[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) v[r] = row_elements(rows + (t + r) * row_stride, columns);
    const __m512i v01 =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i v23 =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    // Element r of each 128-bit lane is a part of row r's sum.
    const __m512i lanes =
        _mm512_add_epi32(_mm512_unpacklo_epi64(v01, v23), _mm512_unpackhi_epi64(v01, v23));
    const __m256i halves =
        _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64(lanes, 1));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(sums + t),
        _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
  }
  for (; t < row_count; ++t) {
    sums[t] = _mm512_reduce_add_epi32(row_elements(rows + t * row_stride, columns));
  }
}

// --- panels ---

// Codes as they are, values + 128.
struct UnsignedForm {
  template <int kQuarter>
  static __m512i trits(__m512i packed) {
    // 16-bit shifts carry bits of the neighbour byte in, which the mask removes.
    return low_trits(_mm512_srli_epi16(packed, 2 * kQuarter));
  }
  static __m512i low_trits(__m512i codes) { return _mm512_and_si512(codes, _mm512_set1_epi8(3)); }
  static __m512i values(__m512i x) {
    return _mm512_xor_si512(x, _mm512_set1_epi8(-kSignedOffset));  // flips the top bit: adds 128
  }
};

}  // namespace

const PanelKernels kPanelAvx512 = {
    .name = "avx512vnni",
    .block_rows = kRowBlock,
    .begin_products = nullptr,
    .end_products = nullptr,
    .ternary_products = ternary_products,
    .signed_products = signed_products,
    .row_sums = row_sums,
    .forward_panel = lay_out_forward<UnsignedForm>,
    .input_gradient_panel = lay_out_input_gradient<UnsignedForm>,
    .weight_gradient_panel = lay_out_weight_gradient<UnsignedForm>,
    .store_products = store_panel_products,
};

}  // namespace bitnet::cpu
