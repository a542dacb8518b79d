// SPDX-License-Identifier: MIT
// The head's kernels for AVX2. vpmaddubsw wants one unsigned operand: the sign of each activation
// goes over to the weight. A pair of products is at most 2 * 128 * 127 = 32512 and fits int16.
#include <immintrin.h>

#include <cstdint>

#include "core/cpu/head_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;

constexpr int kBlock = 4;  // tokens for which a weight is loaded once

__m256i load(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

__m256i products(__m256i weights, __m256i activations) {
  const __m256i pairs =
      _mm256_maddubs_epi16(_mm256_abs_epi8(activations), _mm256_sign_epi8(weights, activations));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

int32_t sum_of(__m256i v) {
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
  return _mm_cvtsi128_si32(sum);
}

// One row at a time, a single forward stream.
template <int kTokens>
void stream_rows(const int8_t* w, int64_t rows, int64_t columns, const int8_t* x, int64_t ahead,
                 int32_t* acc) {
  for (int64_t n = 0; n < rows; ++n, w += columns) {
    __m256i sums[kTokens][2];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
    int64_t k = 0;
    for (; k + 64 <= columns; k += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(w) + k + ahead, _MM_HINT_T1);
#pragma GCC unroll 2
      for (int p = 0; p < 2; ++p) {
        const __m256i weights = load(w + k + 32 * p);
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const __m256i activations = load(x + t * columns + k + 32 * p);
          sums[t][p] = _mm256_add_epi32(sums[t][p], products(weights, activations));
        }
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      int32_t sum = sum_of(_mm256_add_epi32(sums[t][0], sums[t][1]));
      for (int64_t rest = k; rest < columns; ++rest) sum += x[t * columns + rest] * w[rest];
      acc[t * rows + n] = sum;
    }
  }
}

void dot(const int8_t* w, int64_t rows, int64_t columns, const int8_t* x, int64_t tokens,
         int64_t ahead, int32_t* acc) {
  for (; tokens >= kBlock; tokens -= kBlock, x += kBlock * columns, acc += kBlock * rows) {
    stream_rows<kBlock>(w, rows, columns, x, ahead, acc);
  }
  if (tokens == 1) stream_rows<1>(w, rows, columns, x, ahead, acc);
  if (tokens == 2) stream_rows<2>(w, rows, columns, x, ahead, acc);
  if (tokens == 3) stream_rows<3>(w, rows, columns, x, ahead, acc);
}

}  // namespace

const HeadKernels kHeadAvx2 = {.name = "avx2", .dot = dot};

}  // namespace bitnet::cpu
