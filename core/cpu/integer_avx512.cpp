// SPDX-License-Identifier: MIT
// Integer kernels for AVX-512 with VNNI: vpdpbusd multiplies 64 unsigned codes 0..2 by 64 signed
// activations at a time.
#include <immintrin.h>

#include <cstdint>

#include "core/cpu/integer_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint8_t;

constexpr float kScaleEps = 1e-5f;  // as in core/quant/ternary.h
constexpr float kActivationMax = 127.0f;
constexpr int kInfinityBits = 0x7f800000;
constexpr int kTokenBlock = 6;  // 4 rows x 6 tokens = 24 accumulators of the 32 registers
constexpr int64_t kRowLanesColumns = 1 << 16;  // the longest rows of row_lanes()

// --- integer product ---

// Element n of the result's 128-bit lane l is the sum of lane l of r[n].
__m512i add_within_lanes(__m512i r0, __m512i r1, __m512i r2, __m512i r3) {
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
  const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

__m128i add_lanes(__m512i v) {
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// Lane t of the result is the sum of the four lanes of v[t].
__m512i add_lanes_of_four(__m512i v0, __m512i v1, __m512i v2, __m512i v3) {
  const __m512i a =
      _mm512_add_epi32(_mm512_shuffle_i32x4(v0, v1, 0x88), _mm512_shuffle_i32x4(v0, v1, 0xdd));
  const __m512i b =
      _mm512_add_epi32(_mm512_shuffle_i32x4(v2, v3, 0x88), _mm512_shuffle_i32x4(v2, v3, 0xdd));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

void store_corrected(__m128i sums, int32_t x_sum, int32_t* acc) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(acc), _mm_sub_epi32(sums, _mm_set1_epi32(x_sum)));
}

// sums += codes * activations, four neighbours at a time. Not the intrinsic: with 24 accumulators
// GCC 12 copies and spills them around each use of it, which halves the speed.
void add_dot(__m512i& sums, __m512i codes, __m512i activations) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(codes), "v"(activations));
}

template <int kTokens>
void dot_tokens(const uint8_t* packed_row, int64_t columns, const int8_t* x, int64_t x_stride,
                const int32_t* x_sums, int32_t* acc, int64_t acc_stride) {
  const __m512i mask = _mm512_set1_epi8(3);
  __m512i sums[kTokens][4];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums[t][i] = _mm512_setzero_si512();
  }
  for (int64_t c = 0; c < columns; c += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(packed_row) + c + kStreamAhead, _MM_HINT_T1);
    const __m512i packed = _mm512_loadu_si512(packed_row + c);
    // 16-bit shifts carry bits of the neighbour byte in, which the mask removes.
    const __m512i codes[4] = {_mm512_and_si512(packed, mask),
                              _mm512_and_si512(_mm512_srli_epi16(packed, 2), mask),
                              _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask),
                              _mm512_and_si512(_mm512_srli_epi16(packed, 6), mask)};
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m512i activations = _mm512_loadu_si512(x + t * x_stride + c);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        add_dot(sums[t][i], codes[i], activations);
      }
    }
  }
  __m512i lanes[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    lanes[t] = add_within_lanes(sums[t][0], sums[t][1], sums[t][2], sums[t][3]);
  }
  int t = 0;
  if constexpr (kTokens >= 4) {
    const __m512i four = add_lanes_of_four(lanes[0], lanes[1], lanes[2], lanes[3]);
    store_corrected(_mm512_castsi512_si128(four), x_sums[0], acc);
    store_corrected(_mm512_extracti32x4_epi32(four, 1), x_sums[1], acc + acc_stride);
    store_corrected(_mm512_extracti32x4_epi32(four, 2), x_sums[2], acc + 2 * acc_stride);
    store_corrected(_mm512_extracti32x4_epi32(four, 3), x_sums[3], acc + 3 * acc_stride);
    t = 4;
  }
#pragma GCC unroll 4
  for (; t < kTokens; ++t) store_corrected(add_lanes(lanes[t]), x_sums[t], acc + t * acc_stride);
}

void packed_dot(const uint8_t* packed_row, int64_t columns, const int8_t* x, int64_t x_stride,
                const int32_t* x_sums, int64_t tokens, int32_t* acc, int64_t acc_stride) {
  for (; tokens >= kTokenBlock; tokens -= kTokenBlock) {
    dot_tokens<kTokenBlock>(packed_row, columns, x, x_stride, x_sums, acc, acc_stride);
    x += kTokenBlock * x_stride;
    x_sums += kTokenBlock;
    acc += kTokenBlock * acc_stride;
  }
  switch (tokens) {
    case 1:
      return dot_tokens<1>(packed_row, columns, x, x_stride, x_sums, acc, acc_stride);
    case 2:
      return dot_tokens<2>(packed_row, columns, x, x_stride, x_sums, acc, acc_stride);
    case 3:
      return dot_tokens<3>(packed_row, columns, x, x_stride, x_sums, acc, acc_stride);
    case 4:
      return dot_tokens<4>(packed_row, columns, x, x_stride, x_sums, acc, acc_stride);
    case 5:
      return dot_tokens<5>(packed_row, columns, x, x_stride, x_sums, acc, acc_stride);
    default:
      return;
  }
}

// Of one token, the sums of the whole bytes of a row and of their lower 6, 4 and 2 bits. These take
// three `and`s and no shift, because unsigned bytes hold them all; their differences are 64, 16 and
// 4 times the sums of the upper codes. Sums of a whole row may wrap, but not their differences, of
// which the largest is at most 64 * 3 * 128 * columns < 2^31.
struct RowSums {
  __m512i low2 = _mm512_setzero_si512(), low4 = low2, low6 = low2, all = low2;

  // A line of the row. In this order and unmoved: the compiler would put the prefetches of two
  // lines side by side, and then they bring next to nothing; and with each `and` just before its product
  // Zen 4 takes a tenth longer.
  [[gnu::always_inline]] void add(const uint8_t* line, __m512i activations, int64_t ahead) {
    const __m512i packed = _mm512_loadu_si512(line);
    __m512i bits6, bits4, bits2;
    asm volatile(
        "prefetcht1 (%[ahead])\n\t"
        "vpandd %[mask6], %[packed], %[bits6]\n\t"
        "vpandd %[mask4], %[packed], %[bits4]\n\t"
        "vpandd %[mask2], %[packed], %[bits2]\n\t"
        "vpdpbusd %[x], %[packed], %[all]\n\t"
        "vpdpbusd %[x], %[bits6], %[low6]\n\t"
        "vpdpbusd %[x], %[bits4], %[low4]\n\t"
        "vpdpbusd %[x], %[bits2], %[low2]"
        : [all] "+&v"(all), [low6] "+&v"(low6), [low4] "+&v"(low4), [low2] "+v"(low2),
          [bits6] "=&v"(bits6), [bits4] "=&v"(bits4), [bits2] "=&v"(bits2)
        : [ahead] "r"(line + ahead), [packed] "v"(packed), [x] "v"(activations),
          [mask6] "v"(_mm512_set1_epi8(63)), [mask4] "v"(_mm512_set1_epi8(15)),
          [mask2] "v"(_mm512_set1_epi8(3)));
  }
};

// Lane l, in its elements: what lane l of a row's four sums adds up to.
[[gnu::always_inline]] inline __m512i row_lanes(const uint8_t* packed_row, int64_t columns,
                                                const int8_t* x, int64_t ahead) {
  RowSums sums;
  int64_t c = 0;
  for (; c + 128 <= columns; c += 128) {
    sums.add(packed_row + c, _mm512_loadu_si512(x + c), ahead);
    sums.add(packed_row + c + 64, _mm512_loadu_si512(x + c + 64), ahead);
  }
  if (c < columns) sums.add(packed_row + c, _mm512_loadu_si512(x + c), ahead);
  return add_within_lanes(sums.low2, sums.low4, sums.low6, sums.all);
}

// The sums of the four codes of a row, in each lane, from those of its bits.
__m512i codes_of_bits(__m512i sums) {
  const __m512i lower = _mm512_maskz_shuffle_epi32(0xeeee, sums, _MM_PERM_CBAA);
  return _mm512_srav_epi32(_mm512_sub_epi32(sums, lower),
                           _mm512_broadcast_i32x4(_mm_setr_epi32(0, 2, 4, 6)));
}

void packed_rows_dot(const uint8_t* packed, int64_t rows, int64_t columns, const int8_t* x,
                     int32_t x_sum, int64_t ahead, int32_t* acc) {
  int64_t j = 0;
  if (columns > kRowLanesColumns) {
    for (; j < rows; ++j) {
      dot_tokens<1>(packed + j * columns, columns, x, columns, &x_sum, acc + j * 4, 4);
    }
  }
  for (; j + 4 <= rows; j += 4) {
    __m512i lanes[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) lanes[r] = row_lanes(packed + (j + r) * columns, columns, x, ahead);
    const __m512i sums = codes_of_bits(add_lanes_of_four(lanes[0], lanes[1], lanes[2], lanes[3]));
    _mm512_storeu_si512(acc + j * 4, _mm512_sub_epi32(sums, _mm512_set1_epi32(x_sum)));
  }
  for (; j < rows; ++j) {
    const __m128i sums = add_lanes(row_lanes(packed + j * columns, columns, x, ahead));
    store_corrected(_mm512_castsi512_si128(codes_of_bits(_mm512_castsi128_si512(sums))), x_sum,
                    acc + j * 4);
  }
}

int32_t sum_codes(const int8_t* x, int64_t columns) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t c = 0; c < columns; c += 64) {
    sum = _mm512_dpbusd_epi32(sum, ones, _mm512_loadu_si512(x + c));
  }
  return _mm512_reduce_add_epi32(sum);
}

// The products of 16 packed rows, as four vectors of 16 rows: out[i] holds acc[j][i] for j = 0..15.
void transpose_16x4(const int32_t* acc, __m512 out[4]) {
  const __m512i a = _mm512_loadu_si512(acc), b = _mm512_loadu_si512(acc + 16);
  const __m512i c = _mm512_loadu_si512(acc + 32), d = _mm512_loadu_si512(acc + 48);
  // Elements 0 and 1 (or 2 and 3) of the rows of two vectors, then one of them from both pairs.
  const __m512i even = _mm512_set_epi32(28, 24, 20, 16, 12, 8, 4, 0, 29, 25, 21, 17, 13, 9, 5, 1);
  const __m512i odd = _mm512_set_epi32(30, 26, 22, 18, 14, 10, 6, 2, 31, 27, 23, 19, 15, 11, 7, 3);
  const __m512i ab10 = _mm512_permutex2var_epi32(a, even, b);  // low half: element 1, high: 0
  const __m512i cd10 = _mm512_permutex2var_epi32(c, even, d);
  const __m512i ab32 = _mm512_permutex2var_epi32(a, odd, b);  // low half: element 3, high: 2
  const __m512i cd32 = _mm512_permutex2var_epi32(c, odd, d);
  out[0] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(ab10, cd10, 0xee));
  out[1] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(ab10, cd10, 0x44));
  out[2] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(ab32, cd32, 0xee));
  out[3] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(ab32, cd32, 0x44));
}

void store_products(const int32_t* acc, int64_t tokens, int64_t rows, const float* act_scale,
                    float weight_scale, const float* residual, float* y, int64_t y_stride,
                    int64_t quarter) {
  for (int64_t t = 0; t < tokens; ++t) {
    const float scale = act_scale[t] * weight_scale;
    const __m512 scales = _mm512_set1_ps(scale);
    int64_t j = 0;
    for (; j + 16 <= rows; j += 16) {
      __m512 products[4];
      transpose_16x4(acc + j * 4, products);
      for (int i = 0; i < 4; ++i) {
        const int64_t place = i * quarter + j;
        __m512 out = _mm512_mul_ps(scales, products[i]);
        if (residual != nullptr) out = _mm512_add_ps(_mm512_loadu_ps(residual + place), out);
        _mm512_storeu_ps(y + place, out);
      }
    }
    for (; j < rows; ++j) {
      for (int i = 0; i < 4; ++i) {
        const int64_t place = i * quarter + j;
        const float product = scale * static_cast<float>(acc[j * 4 + i]);
        y[place] = residual != nullptr ? residual[place] + product : product;
      }
    }
    acc += rows * 4;
    y += y_stride;
    if (residual != nullptr) residual += y_stride;
  }
}

void add_group_products(const int32_t* acc, int64_t tokens, int64_t rows,
                        const float* weight_scales, float* y, int64_t y_stride, int64_t quarter) {
  for (int64_t t = 0; t < tokens; ++t) {
    int64_t j = 0;
    for (; j + 16 <= rows; j += 16) {
      __m512 products[4];
      transpose_16x4(acc + j * 4, products);
      for (int i = 0; i < 4; ++i) {
        float* sums = y + i * quarter + j;
        _mm512_storeu_ps(sums, _mm512_fmadd_ps(_mm512_loadu_ps(weight_scales + i * rows + j),
                                               products[i], _mm512_loadu_ps(sums)));
      }
    }
    for (; j < rows; ++j) {
      for (int i = 0; i < 4; ++i) {
        float& sum = y[i * quarter + j];
        sum = __builtin_fmaf(weight_scales[i * rows + j], static_cast<float>(acc[j * 4 + i]), sum);
      }
    }
    acc += rows * 4;
    y += y_stride;
  }
}

// --- activations ---

__mmask16 first_lanes(int64_t count) {
  return count >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << count) - 1);
}

// The bits of non-negative floats order like integers, with infinity above all numbers and NaN
// above infinity.
__m512i max_magnitude(__m512i largest, __m512i bits) {
  return _mm512_max_epi32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
}

// 16 floats as integers, ties to even.
__m512i rounded(const float* x, __m512 inv_scale) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inv_scale));
}

float quantize_row(const float* x, int64_t columns, int8_t* codes) {
  __m512i largest[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                        _mm512_setzero_si512()};
  int64_t c = 0;
  for (; c + 64 <= columns; c += 64) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      // Rows of a large matrix come from memory; the second pass finds them in the cache.
      _mm_prefetch(reinterpret_cast<const char*>(x + c + 16 * v) + kStreamAhead, _MM_HINT_T1);
      largest[v] = max_magnitude(largest[v], _mm512_loadu_si512(x + c + 16 * v));
    }
  }
  for (; c < columns; c += 16) {
    largest[0] =
        max_magnitude(largest[0], _mm512_maskz_loadu_epi32(first_lanes(columns - c), x + c));
  }
  const int absmax_bits = _mm512_reduce_max_epi32(_mm512_max_epi32(
      _mm512_max_epi32(largest[0], largest[1]), _mm512_max_epi32(largest[2], largest[3])));
  const float absmax = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(absmax_bits)));
  const bool finite = absmax_bits < kInfinityBits;
  const float bounded = absmax < kScaleEps ? kScaleEps : absmax;
  const __m512 inv_scale = _mm512_set1_ps(kActivationMax / bounded);
  // The packs interleave the 128-bit lanes of their operands; this puts the groups of 4 in order.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (c = 0; c + 64 <= columns; c += 64) {
    const __m512i low =
        _mm512_packs_epi32(rounded(x + c, inv_scale), rounded(x + c + 16, inv_scale));
    const __m512i high =
        _mm512_packs_epi32(rounded(x + c + 32, inv_scale), rounded(x + c + 48, inv_scale));
    const __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
    _mm512_storeu_si512(codes + c, finite ? bytes : _mm512_setzero_si512());
  }
  for (; c < columns; c += 16) {
    const __mmask16 lanes = first_lanes(columns - c);
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + c), inv_scale);
    const __m512i code = finite ? _mm512_cvtps_epi32(scaled) : _mm512_setzero_si512();
    _mm_mask_storeu_epi8(codes + c, lanes, _mm512_cvtepi32_epi8(code));
  }
  return bounded / kActivationMax;
}

void scale_codes(const int8_t* codes, float scale, int64_t columns, float* x) {
  const __m512 scales = _mm512_set1_ps(scale);
  for (int64_t c = 0; c < columns; c += 16) {
    const __mmask16 lanes = first_lanes(columns - c);
    const __m512i wide = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, codes + c));
    _mm512_mask_storeu_ps(x + c, lanes, _mm512_mul_ps(scales, _mm512_cvtepi32_ps(wide)));
  }
}

// --- weights ---

double sum_lanes(const float* w, int64_t count, int sign_mask) {
  const __m512i keep = _mm512_set1_epi32(sign_mask);
  __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();  // lanes 0..7 and 8..15
  for (int64_t k = 0; k < count; k += 16) {
    // Adding the zeros beyond the end changes nothing but the sign of a zero, which starts as +0.
    const __m512i bits =
        _mm512_and_si512(keep, _mm512_maskz_loadu_epi32(first_lanes(count - k), w + k));
    const __m512 terms = _mm512_castsi512_ps(bits);
    low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(terms)));
    high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(terms, 1)));
  }
  const __m512d eight = _mm512_add_pd(low, high);
  const __m256d four =
      _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

double sum_tile(const float* w, int64_t count) { return sum_lanes(w, count, -1); }
double sum_abs_tile(const float* w, int64_t count) { return sum_lanes(w, count, 0x7fffffff); }

// RoundClip(v, -1, 1) with ties to even is (v > 0.5) - (v < -0.5).
void pack_ternary(const float* w, int64_t row_stride, int64_t columns, const float* inv_scales,
                  uint8_t* packed) {
  const __m512 half = _mm512_set1_ps(0.5f), minus_half = _mm512_set1_ps(-0.5f);
  for (int64_t c = 0; c < columns; c += 16) {
    __m512i bytes = _mm512_setzero_si512();
    for (int i = 0; i < 4; ++i) {
      const __m512 scaled =
          _mm512_mul_ps(_mm512_loadu_ps(w + i * row_stride + c), _mm512_set1_ps(inv_scales[i]));
      __m512i code = _mm512_set1_epi32(1 << (2 * i));
      code = _mm512_mask_slli_epi32(code, _mm512_cmp_ps_mask(scaled, half, _CMP_GT_OQ), code, 1);
      code = _mm512_mask_mov_epi32(code, _mm512_cmp_ps_mask(scaled, minus_half, _CMP_LT_OQ),
                                   _mm512_setzero_si512());
      bytes = _mm512_or_si512(bytes, code);
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed + c), _mm512_cvtepi32_epi8(bytes));
  }
}

void pack_binary(const float* w, int64_t row_stride, int64_t columns, const float* means,
                 uint8_t* packed) {
  for (int64_t c = 0; c < columns; c += 16) {
    __m512i bytes = _mm512_setzero_si512();
    for (int i = 0; i < 4; ++i) {
      const __m512 centred =
          _mm512_sub_ps(_mm512_loadu_ps(w + i * row_stride + c), _mm512_set1_ps(means[i]));
      const __mmask16 positive = _mm512_cmp_ps_mask(centred, _mm512_setzero_ps(), _CMP_GT_OQ);
      bytes = _mm512_or_si512(bytes, _mm512_maskz_set1_epi32(positive, 2 << (2 * i)));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed + c), _mm512_cvtepi32_epi8(bytes));
  }
}

void unpack_scaled(const uint8_t* packed, int64_t columns, const float* scales, float* w,
                   int64_t row_stride) {
  const __m512i three = _mm512_set1_epi32(3), one = _mm512_set1_epi32(1);
  for (int64_t c = 0; c < columns; c += 16) {
    __m512i bytes =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + c)));
    for (int i = 0; i < 4; ++i) {
      const __m512i trits = _mm512_sub_epi32(_mm512_and_si512(bytes, three), one);
      _mm512_storeu_ps(w + i * row_stride + c,
                       _mm512_mul_ps(_mm512_set1_ps(scales[i]), _mm512_cvtepi32_ps(trits)));
      bytes = _mm512_srli_epi32(bytes, 2);
    }
  }
}

}  // namespace

const IntegerKernels kIntegerAvx512 = {
    .name = "avx512vnni",
    .token_block = kTokenBlock,
    .packed_dot = packed_dot,
    .packed_rows_dot = packed_rows_dot,
    .sum_codes = sum_codes,
    .store_products = store_products,
    .add_group_products = add_group_products,
    .quantize_row = quantize_row,
    .scale_codes = scale_codes,
    .sum_tile = sum_tile,
    .sum_abs_tile = sum_abs_tile,
    .pack_ternary = pack_ternary,
    .pack_binary = pack_binary,
    .unpack_scaled = unpack_scaled,
};

}  // namespace bitnet::cpu
