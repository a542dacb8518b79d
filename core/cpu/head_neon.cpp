// SPDX-License-Identifier: MIT
// The head's kernels for 64-bit ARM with the dot-product extension: sdot takes both operands
// signed.
#include <arm_neon.h>

#include <cstdint>

#include "core/cpu/head_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;

constexpr int kBlock = 4;  // tokens for which a weight is loaded once

// One row at a time, a single forward stream.
template <int kTokens>
void stream_rows(const int8_t* w, int64_t rows, int64_t columns, const int8_t* x, int64_t ahead,
                 int32_t* acc) {
  for (int64_t n = 0; n < rows; ++n, w += columns) {
    int32x4_t sums[kTokens][4];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) sums[t][p] = vdupq_n_s32(0);
    }
    int64_t k = 0;
    for (; k + 64 <= columns; k += 64) {
      __builtin_prefetch(w + k + ahead, 0, 2);
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) {
        const int8x16_t weights = vld1q_s8(w + k + 16 * p);
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          sums[t][p] = vdotq_s32(sums[t][p], weights, vld1q_s8(x + t * columns + k + 16 * p));
        }
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      int32_t sum = vaddvq_s32(vaddq_s32(vaddq_s32(sums[t][0], sums[t][1]),  //
                                         vaddq_s32(sums[t][2], sums[t][3])));
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

const HeadKernels kHeadNeon = {.name = "neon", .dot = dot};

}  // namespace bitnet::cpu
