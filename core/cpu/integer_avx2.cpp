// SPDX-License-Identifier: MIT
// Integer kernels for AVX2: vpmaddubsw multiplies 32 unsigned codes 0..2 by 32 signed activations
// and adds pairs to int16.
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
constexpr int kTokenTile = 3;  // 4 rows x 3 tokens = 12 accumulators of the 16 registers
// A pair adds at most 3 * 128 * 2 = 768 even for the unused code 3, so int16 holds 42 pairs: 42
// steps of 32 columns.
constexpr int64_t kColumnsPerInt16 = 40 * 32;

__m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

__m128i add_halves(__m256i v) {
  return _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

// --- integer product ---

// sums += pairs. Not the intrinsic: with 12 accumulators GCC 12 moves all additions of a step to
// its end and spills them, which costs a third of the speed.
void add_pairs(__m256i& sums, __m256i pairs) { asm("vpaddw %1, %0, %0" : "+x"(sums) : "x"(pairs)); }

// acc[t][i] += the products of at most kColumnsPerInt16 columns.
template <int kTokens>
void dot_columns(const uint8_t* packed_row, int64_t columns, const int8_t* x, int64_t x_stride,
                 int64_t ahead, int32_t* acc, int64_t acc_stride) {
  const __m256i mask = _mm256_set1_epi8(3);
  __m256i sums[kTokens][4];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums[t][i] = _mm256_setzero_si256();
  }
  for (int64_t c = 0; c < columns; c += 32) {
    if (c % 64 == 0) {
      _mm_prefetch(reinterpret_cast<const char*>(packed_row) + c + ahead, _MM_HINT_T1);
    }
    __m256i packed = load(packed_row + c);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256i codes = _mm256_and_si256(packed, mask);
      // A 16-bit shift carries bits of the neighbour byte in, which the mask removes.
      packed = _mm256_srli_epi16(packed, 2);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        const __m256i pairs = _mm256_maddubs_epi16(codes, load(x + t * x_stride + c));
        add_pairs(sums[t][i], pairs);
      }
    }
  }
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    const __m256i rows01 =
        _mm256_hadd_epi32(_mm256_madd_epi16(sums[t][0], ones), _mm256_madd_epi16(sums[t][1], ones));
    const __m256i rows23 =
        _mm256_hadd_epi32(_mm256_madd_epi16(sums[t][2], ones), _mm256_madd_epi16(sums[t][3], ones));
    auto* out = reinterpret_cast<__m128i*>(acc + t * acc_stride);
    const __m128i sum = add_halves(_mm256_hadd_epi32(rows01, rows23));
    _mm_storeu_si128(out, _mm_add_epi32(_mm_loadu_si128(out), sum));
  }
}

template <int kTokens>
void dot_tokens(const uint8_t* packed_row, int64_t columns, const int8_t* x, int64_t x_stride,
                const int32_t* x_sums, int64_t ahead, int32_t* acc, int64_t acc_stride) {
  for (int t = 0; t < kTokens; ++t) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(acc + t * acc_stride),
                     _mm_sub_epi32(_mm_setzero_si128(), _mm_set1_epi32(x_sums[t])));
  }
  for (int64_t c = 0; c < columns; c += kColumnsPerInt16) {
    const int64_t count = columns - c < kColumnsPerInt16 ? columns - c : kColumnsPerInt16;
    dot_columns<kTokens>(packed_row + c, count, x + c, x_stride, ahead, acc, acc_stride);
  }
}

void packed_dot(const uint8_t* packed_row, int64_t columns, const int8_t* x, int64_t x_stride,
                const int32_t* x_sums, int64_t tokens, int32_t* acc, int64_t acc_stride) {
  for (; tokens >= kTokenTile; tokens -= kTokenTile) {
    dot_tokens<kTokenTile>(packed_row, columns, x, x_stride, x_sums, kStreamAhead, acc, acc_stride);
    x += kTokenTile * x_stride;
    x_sums += kTokenTile;
    acc += kTokenTile * acc_stride;
  }
  if (tokens == 2)
    dot_tokens<2>(packed_row, columns, x, x_stride, x_sums, kStreamAhead, acc, acc_stride);
  if (tokens == 1)
    dot_tokens<1>(packed_row, columns, x, x_stride, x_sums, kStreamAhead, acc, acc_stride);
}

void packed_rows_dot(const uint8_t* packed, int64_t rows, int64_t columns, const int8_t* x,
                     int32_t x_sum, int64_t ahead, int32_t* acc) {
  for (int64_t j = 0; j < rows; ++j) {
    dot_tokens<1>(packed + j * columns, columns, x, columns, &x_sum, ahead, acc + j * 4, 4);
  }
}

int32_t sum_codes(const int8_t* x, int64_t columns) {
  const __m256i one_bytes = _mm256_set1_epi8(1), one_words = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256();
  for (int64_t c = 0; c < columns; c += 32) {
    const __m256i pairs = _mm256_maddubs_epi16(one_bytes, load(x + c));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, one_words));
  }
  __m128i four = add_halves(sum);
  four = _mm_hadd_epi32(four, four);
  return _mm_cvtsi128_si32(_mm_hadd_epi32(four, four));
}

// The products of 4 packed rows, as four vectors of 4 rows: out[i] holds acc[j][i] for j = 0..3.
void transpose_4x4(const int32_t* acc, __m128 out[4]) {
  const auto* rows = reinterpret_cast<const __m128i*>(acc);
  for (int j = 0; j < 4; ++j) out[j] = _mm_cvtepi32_ps(_mm_loadu_si128(rows + j));
  _MM_TRANSPOSE4_PS(out[0], out[1], out[2], out[3]);
}

void store_products(const int32_t* acc, int64_t tokens, int64_t rows, const float* act_scale,
                    float weight_scale, const float* residual, float* y, int64_t y_stride,
                    int64_t quarter) {
  for (int64_t t = 0; t < tokens; ++t) {
    const float scale = act_scale[t] * weight_scale;
    const __m128 scales = _mm_set1_ps(scale);
    int64_t j = 0;
    for (; j + 4 <= rows; j += 4) {
      __m128 products[4];
      transpose_4x4(acc + j * 4, products);
      for (int i = 0; i < 4; ++i) {
        const int64_t place = i * quarter + j;
        __m128 out = _mm_mul_ps(scales, products[i]);
        if (residual != nullptr) out = _mm_add_ps(_mm_loadu_ps(residual + place), out);
        _mm_storeu_ps(y + place, out);
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
    for (; j + 4 <= rows; j += 4) {
      __m128 products[4];
      transpose_4x4(acc + j * 4, products);
      for (int i = 0; i < 4; ++i) {
        float* sums = y + i * quarter + j;
        _mm_storeu_ps(sums, _mm_fmadd_ps(_mm_loadu_ps(weight_scales + i * rows + j), products[i],
                                         _mm_loadu_ps(sums)));
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

int magnitude_bits(float v) {
  return _mm_cvtsi128_si32(_mm_castps_si128(_mm_set_ss(v))) & 0x7fffffff;
}
int round_to_even(float v) { return _mm_cvtss_si32(_mm_set_ss(v)); }

// The bits of non-negative floats order like integers, with infinity above all numbers and NaN
// above infinity.
int absmax_bits(const float* x, int64_t columns) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  int64_t c = 0;
  for (; c + 8 <= columns; c += 8) {
    largest = _mm256_max_epi32(largest, _mm256_and_si256(load(x + c), magnitude));
  }
  __m128i four =
      _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  int bits = _mm_cvtsi128_si32(four);
  for (; c < columns; ++c) {
    const int candidate = magnitude_bits(x[c]);
    bits = candidate > bits ? candidate : bits;
  }
  return bits;
}

float quantize_row(const float* x, int64_t columns, int8_t* codes) {
  const int bits = absmax_bits(x, columns);
  const float absmax = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(bits)));
  if (bits >= kInfinityBits) {
    for (int64_t c = 0; c < columns; ++c) codes[c] = 0;
    return absmax / kActivationMax;
  }
  const float bounded = absmax < kScaleEps ? kScaleEps : absmax;
  const float inv_scale = kActivationMax / bounded;
  const __m256 inv_scales = _mm256_set1_ps(inv_scale);
  // The two packs interleave the 128-bit lanes of the four vectors; this puts them in order again.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  int64_t c = 0;
  for (; c + 32 <= columns; c += 32) {
    __m256i rounded[4];  // ties to even
    for (int n = 0; n < 4; ++n) {
      rounded[n] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + c + 8 * n), inv_scales));
    }
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(rounded[0], rounded[1]),
                                             _mm256_packs_epi32(rounded[2], rounded[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + c),
                        _mm256_permutevar8x32_epi32(bytes, order));
  }
  for (; c < columns; ++c) codes[c] = static_cast<int8_t>(round_to_even(x[c] * inv_scale));
  return bounded / kActivationMax;
}

void scale_codes(const int8_t* codes, float scale, int64_t columns, float* x) {
  const __m256 scales = _mm256_set1_ps(scale);
  int64_t c = 0;
  for (; c + 8 <= columns; c += 8) {
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + c));
    const __m256 wide = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
    _mm256_storeu_ps(x + c, _mm256_mul_ps(scales, wide));
  }
  for (; c < columns; ++c) x[c] = scale * static_cast<float>(codes[c]);
}

// --- weights ---

double sum_lanes(const float* w, int64_t count, int sign_mask) {
  const __m128i keep = _mm_set1_epi32(sign_mask);
  __m256d lanes[4] = {};  // lanes 4n .. 4n + 3
  int64_t k = 0;
  for (; k + 16 <= count; k += 16) {
    for (int n = 0; n < 4; ++n) {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + k + 4 * n));
      lanes[n] =
          _mm256_add_pd(lanes[n], _mm256_cvtps_pd(_mm_castsi128_ps(_mm_and_si128(bits, keep))));
    }
  }
  if (k < count) {
    // Adding the zeros beyond the end changes nothing: no lane is -0, as each starts as +0.
    float last[16] = {};
    for (int64_t l = 0; l < count - k; ++l) last[l] = w[k + l];
    for (int n = 0; n < 4; ++n) {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(last + 4 * n));
      lanes[n] =
          _mm256_add_pd(lanes[n], _mm256_cvtps_pd(_mm_castsi128_ps(_mm_and_si128(bits, keep))));
    }
  }
  const __m256d four =
      _mm256_add_pd(_mm256_add_pd(lanes[0], lanes[2]), _mm256_add_pd(lanes[1], lanes[3]));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

double sum_tile(const float* w, int64_t count) { return sum_lanes(w, count, -1); }
double sum_abs_tile(const float* w, int64_t count) { return sum_lanes(w, count, 0x7fffffff); }

// Eight bytes from the eight 32-bit elements.
void store_bytes(__m256i elements, uint8_t* out) {
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(elements), _mm256_extracti128_si256(elements, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(words, words));
}

// RoundClip(v, -1, 1) with ties to even is (v > 0.5) - (v < -0.5).
void pack_ternary(const float* w, int64_t row_stride, int64_t columns, const float* inv_scales,
                  uint8_t* packed) {
  const __m256 half = _mm256_set1_ps(0.5f), minus_half = _mm256_set1_ps(-0.5f);
  for (int64_t c = 0; c < columns; c += 8) {
    __m256i bytes = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      const __m256 scaled =
          _mm256_mul_ps(_mm256_loadu_ps(w + i * row_stride + c), _mm256_set1_ps(inv_scales[i]));
      // A true comparison is -1: code = 1 - (v > 0.5 ? -1 : 0) + (v < -0.5 ? -1 : 0).
      const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(scaled, half, _CMP_GT_OQ));
      const __m256i below = _mm256_castps_si256(_mm256_cmp_ps(scaled, minus_half, _CMP_LT_OQ));
      const __m256i code = _mm256_add_epi32(_mm256_sub_epi32(_mm256_set1_epi32(1), above), below);
      bytes = _mm256_or_si256(bytes, _mm256_slli_epi32(code, 2 * i));
    }
    store_bytes(bytes, packed + c);
  }
}

void pack_binary(const float* w, int64_t row_stride, int64_t columns, const float* means,
                 uint8_t* packed) {
  for (int64_t c = 0; c < columns; c += 8) {
    __m256i bytes = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      const __m256 centred =
          _mm256_sub_ps(_mm256_loadu_ps(w + i * row_stride + c), _mm256_set1_ps(means[i]));
      const __m256i positive =
          _mm256_castps_si256(_mm256_cmp_ps(centred, _mm256_setzero_ps(), _CMP_GT_OQ));
      bytes = _mm256_or_si256(bytes, _mm256_and_si256(positive, _mm256_set1_epi32(2 << (2 * i))));
    }
    store_bytes(bytes, packed + c);
  }
}

void unpack_scaled(const uint8_t* packed, int64_t columns, const float* scales, float* w,
                   int64_t row_stride) {
  const __m256i three = _mm256_set1_epi32(3), one = _mm256_set1_epi32(1);
  for (int64_t c = 0; c < columns; c += 8) {
    __m256i bytes =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed + c)));
    for (int i = 0; i < 4; ++i) {
      const __m256i trits = _mm256_sub_epi32(_mm256_and_si256(bytes, three), one);
      _mm256_storeu_ps(w + i * row_stride + c,
                       _mm256_mul_ps(_mm256_set1_ps(scales[i]), _mm256_cvtepi32_ps(trits)));
      bytes = _mm256_srli_epi32(bytes, 2);
    }
  }
}

}  // namespace

const IntegerKernels kIntegerAvx2 = {
    .name = "avx2",
    .token_block = 2 * kTokenTile,
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
