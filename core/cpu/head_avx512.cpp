// SPDX-License-Identifier: MIT
// The head's kernels for AVX-512 with VNNI. vpdpbusd wants one unsigned operand: flipping a
// weight's sign bit adds 128 to it, so 128 * sum(x) is taken off again at the end.
#include <immintrin.h>

#include <cstdint>

#include "core/cpu/head_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;

constexpr int kBlock = 4;  // 4 rows x 4 tokens = 16 accumulators

// sums += bytes * activations, four neighbours at a time. Not the intrinsic: GCC 12 copies and
// spills many accumulators around each use of it.
void add_dot(__m512i& sums, __m512i bytes, __m512i activations) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(bytes), "v"(activations));
}

// The mask of the first `count` bytes, 1 to 64.
__mmask64 first_bytes(int64_t count) { return ~__mmask64{0} >> (64 - count); }

// 128 * the sum of x.
int32_t offset_of(const int8_t* x, int64_t columns) {
  const __m512i offset = _mm512_set1_epi8(static_cast<char>(-128));
  __m512i sum = _mm512_setzero_si512();
  int64_t k = 0;
  for (; k + 64 <= columns; k += 64) add_dot(sum, offset, _mm512_loadu_si512(x + k));
  if (k < columns) {
    const __mmask64 mask = first_bytes(columns - k);
    add_dot(sum, offset, _mm512_maskz_loadu_epi8(mask, x + k));
  }
  return _mm512_reduce_add_epi32(sum);
}

// One token, one row at a time, a single forward stream. One sum on purpose: vpdpbusd's latency then
// sets the pace of 64 bytes in 5 cycles, faster than the memory, and evenly spread requests get a
// tenth more from it than bursts do.
void stream_rows(const int8_t* w, int64_t rows, int64_t columns, const int8_t* x, int32_t offset,
                 int64_t ahead, int32_t* acc) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(-128));
  for (int64_t n = 0; n < rows; ++n, w += columns) {
    __m512i sum = _mm512_setzero_si512();
    int64_t k = 0;
    for (; k + 64 <= columns; k += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(w) + k + ahead, _MM_HINT_T1);
      const __m512i bytes = _mm512_xor_si512(_mm512_loadu_si512(w + k), flip);
      add_dot(sum, bytes, _mm512_loadu_si512(x + k));
    }
    if (k < columns) {
      const __mmask64 mask = first_bytes(columns - k);
      const __m512i bytes = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, w + k), flip);
      add_dot(sum, bytes, _mm512_maskz_loadu_epi8(mask, x + k));
    }
    acc[n] = _mm512_reduce_add_epi32(sum) - offset;
  }
}

// The same for two tokens or more.
template <int kTokens>
void stream_rows(const int8_t* w, int64_t rows, int64_t columns, const int8_t* x,
                 const int32_t* offsets, int64_t ahead, int32_t* acc, int64_t acc_stride) {
  constexpr int kParts = 2;
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(-128));
  for (int64_t n = 0; n < rows; ++n, w += columns) {
    __m512i sums[kTokens][kParts];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) sums[t][p] = _mm512_setzero_si512();
    }
    int64_t k = 0;
    for (; k + 64 * kParts <= columns; k += 64 * kParts) {
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
        _mm_prefetch(reinterpret_cast<const char*>(w) + k + 64 * p + ahead, _MM_HINT_T1);
        const __m512i bytes = _mm512_xor_si512(_mm512_loadu_si512(w + k + 64 * p), flip);
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          add_dot(sums[t][p], bytes, _mm512_loadu_si512(x + t * columns + k + 64 * p));
        }
      }
    }
    for (; k < columns; k += 64) {
      const __mmask64 mask = first_bytes(columns - k < 64 ? columns - k : 64);
      const __m512i bytes = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, w + k), flip);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        add_dot(sums[t][0], bytes, _mm512_maskz_loadu_epi8(mask, x + t * columns + k));
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const __m512i sum = _mm512_add_epi32(sums[t][0], sums[t][1]);
      acc[t * acc_stride + n] = _mm512_reduce_add_epi32(sum) - offsets[t];
    }
  }
}

// sums[t][n] += 64 columns of row n and token t, or those of the mask.
template <bool kMasked>
void add_block(const int8_t* w, int64_t columns, const int8_t* x, int64_t k, __mmask64 mask,
               __m512i sums[kBlock][kBlock]) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(-128));
  __m512i bytes[kBlock];
#pragma GCC unroll 4
  for (int n = 0; n < kBlock; ++n) {
    const int8_t* row = w + n * columns + k;
    bytes[n] = kMasked ? _mm512_maskz_loadu_epi8(mask, row) : _mm512_loadu_si512(row);
    bytes[n] = _mm512_xor_si512(bytes[n], flip);
  }
#pragma GCC unroll 4
  for (int t = 0; t < kBlock; ++t) {
    const int8_t* token = x + t * columns + k;
    const __m512i activations =
        kMasked ? _mm512_maskz_loadu_epi8(mask, token) : _mm512_loadu_si512(token);
#pragma GCC unroll 4
    for (int n = 0; n < kBlock; ++n) add_dot(sums[t][n], bytes[n], activations);
  }
}

// Element n is the sum of the 16 elements of r[n].
__m128i add_elements(const __m512i r[kBlock]) {
  const __m512i a =
      _mm512_add_epi32(_mm512_unpacklo_epi32(r[0], r[1]), _mm512_unpackhi_epi32(r[0], r[1]));
  const __m512i b =
      _mm512_add_epi32(_mm512_unpacklo_epi32(r[2], r[3]), _mm512_unpackhi_epi32(r[2], r[3]));
  const __m512i lanes = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  const __m256i half =
      _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64(lanes, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// Four rows for four tokens. The next four rows are fetched meanwhile.
void block(const int8_t* w, int64_t columns, const int8_t* x, const int32_t* offsets, int32_t* acc,
           int64_t acc_stride) {
  __m512i sums[kBlock][kBlock];
#pragma GCC unroll 4
  for (int t = 0; t < kBlock; ++t) {
#pragma GCC unroll 4
    for (int n = 0; n < kBlock; ++n) sums[t][n] = _mm512_setzero_si512();
  }
  const auto* ahead = reinterpret_cast<const char*>(w + kBlock * columns);
  int64_t k = 0;
  for (; k + 64 <= columns; k += 64) {
#pragma GCC unroll 4
    for (int n = 0; n < kBlock; ++n) _mm_prefetch(ahead + kBlock * k + 64 * n, _MM_HINT_T1);
    add_block<false>(w, columns, x, k, 0, sums);
  }
  if (k < columns) add_block<true>(w, columns, x, k, first_bytes(columns - k), sums);
#pragma GCC unroll 4
  for (int t = 0; t < kBlock; ++t) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(acc + t * acc_stride),
                     _mm_sub_epi32(add_elements(sums[t]), _mm_set1_epi32(offsets[t])));
  }
}

void dot(const int8_t* w, int64_t rows, int64_t columns, const int8_t* x, int64_t tokens,
         int64_t ahead, int32_t* acc) {
  int32_t offsets[kBlock];
  for (; tokens > 0; tokens -= kBlock, x += kBlock * columns, acc += kBlock * rows) {
    const int64_t count = tokens < kBlock ? tokens : kBlock;
    for (int64_t t = 0; t < count; ++t) offsets[t] = offset_of(x + t * columns, columns);
    if (count == 1) {
      stream_rows(w, rows, columns, x, offsets[0], ahead, acc);
    } else if (count == 2) {
      stream_rows<2>(w, rows, columns, x, offsets, ahead, acc, rows);
    } else if (count == 3) {
      stream_rows<3>(w, rows, columns, x, offsets, ahead, acc, rows);
    } else {
      int64_t n = 0;
      for (; n + kBlock <= rows; n += kBlock) {
        block(w + n * columns, columns, x, offsets, acc + n, rows);
      }
      stream_rows<4>(w + n * columns, rows - n, columns, x, offsets, ahead, acc + n, rows);
    }
  }
}

}  // namespace

const HeadKernels kHeadAvx512 = {.name = "avx512vnni", .dot = dot};

}  // namespace bitnet::cpu
