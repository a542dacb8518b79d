// SPDX-License-Identifier: MIT
// Panel kernels for AVX2: vpmaddubsw multiplies unsigned bytes by signed ones and adds pairs to
// int16. Codes 0..2 leave room to add many pairs there; signed values do not.
#include <immintrin.h>

#include <cstdint>

#include "core/cpu/panel_kernels.h"
#include "core/cpu/transpose_avx2.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint32_t;
using std::uint8_t;

constexpr int kLineOutputs = 8;      // outputs of a register
constexpr int kTernaryRowBlock = 6;  // 2 lines x 6 rows = 12 accumulators of the 16 registers
constexpr int kSignedRowBlock = 4;   // 2 lines x 4 rows
// A pair adds at most 3 * 128 * 2 = 768 even for the unused code 3, so int16 holds 42 pairs.
constexpr int64_t kStepsPerInt16 = 40;

__m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

// Four bytes of a row for all outputs, from memory: no port that computes is needed.
__m256i broadcast(const int8_t* row) {
  __m256i out;
  asm("vpbroadcastd %1, %0" : "=x"(out) : "m"(*reinterpret_cast<const int8_t(*)[4]>(row)));
  return out;
}

// Not the intrinsics: with many accumulators GCC 12 moves all additions of a step to its end and
// spills them.
void add_int16(__m256i& sums, __m256i v) { asm("vpaddw %1, %0, %0" : "+x"(sums) : "x"(v)); }
void add_int32(__m256i& sums, __m256i v) { asm("vpaddd %1, %0, %0" : "+x"(sums) : "x"(v)); }

// --- products ---

// acc[t][:] [+]= what the products are added to: with `ternary` -row_sums[t], else 0.
void start_rows(const int32_t* row_sums, int64_t row_count, bool ternary, bool accumulate,
                int32_t* acc) {
  for (int64_t t = 0; t < row_count; ++t) {
    // trit = code - 1: the row's sum is taken off in advance.
    const __m256i start =
        ternary ? _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_set1_epi32(row_sums[t]))
                : _mm256_setzero_si256();
    for (int64_t o = 0; o < kPanelWidth; o += kLineOutputs) {
      int32_t* out = acc + t * kPanelWidth + o;
      store(out, accumulate ? _mm256_add_epi32(load(out), start) : start);
    }
  }
}

// acc[t][0 .. 15] += the products of at most kStepsPerInt16 steps of 16 outputs.
template <int kRows>
void ternary_block(const uint8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                   int32_t* acc) {
  __m256i sums[kRows][2];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
  for (int64_t s = 0; s < steps; ++s) {
    const __m256i line0 = load(panel + s * kPanelStep), line1 = load(panel + s * kPanelStep + 32);
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      const __m256i row = broadcast(rows + t * row_stride + 4 * s);
      add_int16(sums[t][0], _mm256_maddubs_epi16(line0, row));
      add_int16(sums[t][1], _mm256_maddubs_epi16(line1, row));
    }
  }
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
    for (int i = 0; i < 2; ++i) {
      int32_t* out = acc + t * kPanelWidth + i * kLineOutputs;
      store(out, _mm256_add_epi32(load(out), _mm256_madd_epi16(sums[t][i], ones)));
    }
  }
}

// acc[t][0 .. 15] += the products of all steps of 16 outputs. |value| * (row with value's sign) is
// their product; a pair of these is at most 2 * 127 * 127 < 2^15.
template <int kRows>
void signed_block(const int8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                  int32_t* acc) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums[kRows][2];
#pragma GCC unroll 4
  for (int t = 0; t < kRows; ++t) {
    sums[t][0] = load(acc + t * kPanelWidth);
    sums[t][1] = load(acc + t * kPanelWidth + kLineOutputs);
  }
  for (int64_t s = 0; s < steps; ++s) {
    const __m256i line0 = load(panel + s * kPanelStep), line1 = load(panel + s * kPanelStep + 32);
    const __m256i magnitude0 = _mm256_abs_epi8(line0), magnitude1 = _mm256_abs_epi8(line1);
#pragma GCC unroll 4
    for (int t = 0; t < kRows; ++t) {
      const __m256i row = broadcast(rows + t * row_stride + 4 * s);
      const __m256i pairs0 = _mm256_maddubs_epi16(magnitude0, _mm256_sign_epi8(row, line0));
      add_int32(sums[t][0], _mm256_madd_epi16(pairs0, ones));
      const __m256i pairs1 = _mm256_maddubs_epi16(magnitude1, _mm256_sign_epi8(row, line1));
      add_int32(sums[t][1], _mm256_madd_epi16(pairs1, ones));
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kRows; ++t) {
    store(acc + t * kPanelWidth, sums[t][0]);
    store(acc + t * kPanelWidth + kLineOutputs, sums[t][1]);
  }
}

template <int kRows>
void ternary_rows(const uint8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                  int32_t* acc) {
  for (int64_t s = 0; s < steps; s += kStepsPerInt16) {
    const int64_t count = steps - s < kStepsPerInt16 ? steps - s : kStepsPerInt16;
    for (int64_t o = 0; o < kPanelWidth; o += 2 * kLineOutputs) {
      ternary_block<kRows>(panel + s * kPanelStep + 4 * o, count, rows + 4 * s, row_stride,
                           acc + o);
    }
  }
}

template <int kRows>
void signed_rows(const int8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                 int32_t* acc) {
  for (int64_t o = 0; o < kPanelWidth; o += 2 * kLineOutputs) {
    signed_block<kRows>(panel + 4 * o, steps, rows, row_stride, acc + o);
  }
}

void ternary_products(const uint8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                      const int32_t* row_sums, int64_t row_count, bool accumulate, int32_t* acc) {
  start_rows(row_sums, row_count, true, accumulate, acc);
  for (; row_count >= kTernaryRowBlock; row_count -= kTernaryRowBlock) {
    ternary_rows<kTernaryRowBlock>(panel, steps, rows, row_stride, acc);
    rows += kTernaryRowBlock * row_stride;
    acc += kTernaryRowBlock * kPanelWidth;
  }
  switch (row_count) {
    case 1:
      return ternary_rows<1>(panel, steps, rows, row_stride, acc);
    case 2:
      return ternary_rows<2>(panel, steps, rows, row_stride, acc);
    case 3:
      return ternary_rows<3>(panel, steps, rows, row_stride, acc);
    case 4:
      return ternary_rows<4>(panel, steps, rows, row_stride, acc);
    case 5:
      return ternary_rows<5>(panel, steps, rows, row_stride, acc);
    default:
      return;
  }
}

void signed_products(const int8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                     const int32_t* row_sums, int64_t row_count, bool accumulate, int32_t* acc) {
  start_rows(row_sums, row_count, false, accumulate, acc);
  for (; row_count >= kSignedRowBlock; row_count -= kSignedRowBlock) {
    signed_rows<kSignedRowBlock>(panel, steps, rows, row_stride, acc);
    rows += kSignedRowBlock * row_stride;
    acc += kSignedRowBlock * kPanelWidth;
  }
  if (row_count == 3) signed_rows<3>(panel, steps, rows, row_stride, acc);
  if (row_count == 2) signed_rows<2>(panel, steps, rows, row_stride, acc);
  if (row_count == 1) signed_rows<1>(panel, steps, rows, row_stride, acc);
}

void row_sums(const int8_t* rows, int64_t row_stride, int64_t columns, int64_t row_count,
              int32_t* sums) {
  const __m256i one_bytes = _mm256_set1_epi8(1), one_words = _mm256_set1_epi16(1);
  for (int64_t t = 0; t < row_count; ++t) {
    __m256i sum = _mm256_setzero_si256();
    for (int64_t c = 0; c < columns; c += 32) {
      const __m256i pairs = _mm256_maddubs_epi16(one_bytes, load(rows + t * row_stride + c));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, one_words));
    }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_hadd_epi32(four, four);
    sums[t] = _mm_cvtsi128_si32(_mm_hadd_epi32(four, four));
  }
}

// --- panels ---

void forward_panel(const uint8_t* packed, int64_t row_stride, int64_t packed_rows, int64_t columns,
                   uint8_t* panel) {
  const __m256i mask = _mm256_set1_epi8(3);
  for (int64_t c = 0; c < columns; c += 32) {
    for (int64_t first = 0; first < 16; first += 8) {
      __m256i v[8];
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        v[j] = first + j < packed_rows ? load(packed + (first + j) * row_stride + c)
                                       : _mm256_set1_epi8(0x55);  // four codes 1
      }
      transpose_8x8(v);
#pragma GCC unroll 8
      for (int s = 0; s < 8; ++s) {
        uint8_t* lines = panel + (c / 4 + s) * kPanelStep + 4 * first;
        // 16-bit shifts carry bits of the neighbour byte in, which the mask removes.
        store(lines, _mm256_and_si256(v[s], mask));
        store(lines + 64, _mm256_and_si256(_mm256_srli_epi16(v[s], 2), mask));
        store(lines + 128, _mm256_and_si256(_mm256_srli_epi16(v[s], 4), mask));
        store(lines + 192, _mm256_and_si256(_mm256_srli_epi16(v[s], 6), mask));
      }
    }
  }
}

void input_gradient_panel(const uint8_t* packed, int64_t row_stride, int64_t packed_rows,
                          uint8_t* panel) {
  const __m256i mask = _mm256_set1_epi8(3);
  for (int64_t r = 0; r < packed_rows; ++r) {
    for (int64_t c = 0; c < kPanelWidth; c += 8) {
      // A byte abcd (2 bits each) of each 32-bit element; shifted left by 6, 12 and 18 bits its
      // codes c, b and a come to the bottom of bytes 1, 2 and 3.
      const __m256i bytes = _mm256_cvtepu8_epi32(
          _mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed + r * row_stride + c)));
      const __m256i low = _mm256_or_si256(bytes, _mm256_slli_epi32(bytes, 6));
      const __m256i high =
          _mm256_or_si256(_mm256_slli_epi32(bytes, 12), _mm256_slli_epi32(bytes, 18));
      store(panel + r * kPanelStep + c * 4, _mm256_and_si256(_mm256_or_si256(low, high), mask));
    }
  }
}

void weight_gradient_panel(const int8_t* x, int64_t row_stride, int64_t tokens, int8_t* panel) {
  // Element 4 l + v takes element 2 v + l, so that the interleaving within 128-bit lanes below
  // leaves neighbouring columns in each line.
  const __m256i order = _mm256_set_epi32(7, 5, 3, 1, 6, 4, 2, 0);
  for (int64_t t = 0; t < tokens; t += 4) {
    for (int64_t c = 0; c < kPanelWidth; c += 32) {
      __m256i v[4];
#pragma GCC unroll 4
      for (int b = 0; b < 4; ++b) {
        v[b] = t + b < tokens
                   ? _mm256_permutevar8x32_epi32(load(x + (t + b) * row_stride + c), order)
                   : _mm256_setzero_si256();
      }
      const __m256i lo01 = _mm256_unpacklo_epi8(v[0], v[1]);
      const __m256i hi01 = _mm256_unpackhi_epi8(v[0], v[1]);
      const __m256i lo23 = _mm256_unpacklo_epi8(v[2], v[3]);
      const __m256i hi23 = _mm256_unpackhi_epi8(v[2], v[3]);
      int8_t* lines = panel + t / 4 * kPanelStep + 4 * c;
      store(lines, _mm256_unpacklo_epi16(lo01, lo23));
      store(lines + 32, _mm256_unpackhi_epi16(lo01, lo23));
      store(lines + 64, _mm256_unpacklo_epi16(hi01, hi23));
      store(lines + 96, _mm256_unpackhi_epi16(hi01, hi23));
    }
  }
}

// --- write-back ---

void store_products(const int32_t* acc, int64_t tokens, int64_t packed_rows, const float* act_scale,
                    float weight_scale, const float* residual, float* y, int64_t y_stride,
                    int64_t quarter) {
  for (int64_t t = 0; t < tokens; ++t) {
    const float scale = act_scale[t] * weight_scale;
    const __m256 scales = _mm256_set1_ps(scale);
    for (int64_t i = 0; i < 4; ++i) {
      const int32_t* sums = acc + t * kPanelWidth + 16 * i;
      const int64_t first = t * y_stride + i * quarter;
      int64_t j = 0;
      for (; j + 8 <= packed_rows; j += 8) {
        __m256 out = _mm256_mul_ps(scales, _mm256_cvtepi32_ps(load(sums + j)));
        if (residual != nullptr) out = _mm256_add_ps(_mm256_loadu_ps(residual + first + j), out);
        _mm256_storeu_ps(y + first + j, out);
      }
      for (; j < packed_rows; ++j) {
        const float product = scale * static_cast<float>(sums[j]);
        y[first + j] = residual != nullptr ? residual[first + j] + product : product;
      }
    }
  }
}

}  // namespace

const PanelKernels kPanelAvx2 = {
    .name = "avx2",
    .block_rows = kTernaryRowBlock,
    .begin_products = nullptr,
    .end_products = nullptr,
    .ternary_products = ternary_products,
    .signed_products = signed_products,
    .row_sums = row_sums,
    .forward_panel = forward_panel,
    .input_gradient_panel = input_gradient_panel,
    .weight_gradient_panel = weight_gradient_panel,
    .store_products = store_products,
};

}  // namespace bitnet::cpu
