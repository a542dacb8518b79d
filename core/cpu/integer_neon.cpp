// SPDX-License-Identifier: MIT
// Integer kernels for 64-bit ARM with the dot-product extension: sdot multiplies 16 signed codes
// 0..2 by 16 activations.
#include <arm_neon.h>

#include <cstdint>

#include "core/cpu/integer_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint32_t;
using std::uint8_t;

constexpr float kScaleEps = 1e-5f;  // as in core/quant/ternary.h
constexpr float kActivationMax = 127.0f;
constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr uint32_t kMagnitudeMask = 0x7fffffffu;
constexpr int kTokenBlock = 4;  // 4 rows x 4 tokens = 16 accumulators of the 32 registers

// --- integer product ---

template <int kTokens>
void dot_tokens(const uint8_t* packed_row, int64_t columns, const int8_t* x, int64_t x_stride,
                const int32_t* x_sums, int64_t ahead, int32_t* acc, int64_t acc_stride) {
  const uint8x16_t mask = vdupq_n_u8(3);
  int32x4_t sums[kTokens][4];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums[t][i] = vdupq_n_s32(0);
  }
  for (int64_t c = 0; c < columns; c += 16) {
    // With one token the weights come from memory, one forward stream.
    if constexpr (kTokens == 1) __builtin_prefetch(packed_row + c + ahead, 0, 2);
    const uint8x16_t packed = vld1q_u8(packed_row + c);
    const int8x16_t codes[4] = {vreinterpretq_s8_u8(vandq_u8(packed, mask)),
                                vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(packed, 2), mask)),
                                vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(packed, 4), mask)),
                                vreinterpretq_s8_u8(vshrq_n_u8(packed, 6))};
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const int8x16_t activations = vld1q_s8(x + t * x_stride + c);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sums[t][i] = vdotq_s32(sums[t][i], codes[i], activations);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    const int32x4_t rows = vpaddq_s32(vpaddq_s32(sums[t][0], sums[t][1]),  //
                                      vpaddq_s32(sums[t][2], sums[t][3]));
    vst1q_s32(acc + t * acc_stride, vsubq_s32(rows, vdupq_n_s32(x_sums[t])));
  }
}

void packed_dot(const uint8_t* packed_row, int64_t columns, const int8_t* x, int64_t x_stride,
                const int32_t* x_sums, int64_t tokens, int32_t* acc, int64_t acc_stride) {
  for (; tokens >= kTokenBlock; tokens -= kTokenBlock) {
    dot_tokens<kTokenBlock>(packed_row, columns, x, x_stride, x_sums, kStreamAhead, acc,
                            acc_stride);
    x += kTokenBlock * x_stride;
    x_sums += kTokenBlock;
    acc += kTokenBlock * acc_stride;
  }
  switch (tokens) {
    case 1:
      return dot_tokens<1>(packed_row, columns, x, x_stride, x_sums, kStreamAhead, acc, acc_stride);
    case 2:
      return dot_tokens<2>(packed_row, columns, x, x_stride, x_sums, kStreamAhead, acc, acc_stride);
    case 3:
      return dot_tokens<3>(packed_row, columns, x, x_stride, x_sums, kStreamAhead, acc, acc_stride);
    default:
      return;
  }
}

void packed_rows_dot(const uint8_t* packed, int64_t rows, int64_t columns, const int8_t* x,
                     int32_t x_sum, int64_t ahead, int32_t* acc) {
  for (int64_t j = 0; j < rows; ++j) {
    dot_tokens<1>(packed + j * columns, columns, x, columns, &x_sum, ahead, acc + j * 4, 4);
  }
}

int32_t sum_codes(const int8_t* x, int64_t columns) {
  int32x4_t sum = vdupq_n_s32(0);
  for (int64_t c = 0; c < columns; c += 16) sum = vdotq_s32(sum, vld1q_s8(x + c), vdupq_n_s8(1));
  return vaddvq_s32(sum);
}

void store_products(const int32_t* acc, int64_t tokens, int64_t rows, const float* act_scale,
                    float weight_scale, const float* residual, float* y, int64_t y_stride,
                    int64_t quarter) {
  for (int64_t t = 0; t < tokens; ++t) {
    const float scale = act_scale[t] * weight_scale;
    int64_t j = 0;
    for (; j + 4 <= rows; j += 4) {
      const int32x4x4_t products = vld4q_s32(acc + j * 4);  // val[i] holds acc[j..j + 3][i]
      for (int i = 0; i < 4; ++i) {
        const int64_t place = i * quarter + j;
        float32x4_t out = vmulq_n_f32(vcvtq_f32_s32(products.val[i]), scale);
        if (residual != nullptr) out = vaddq_f32(vld1q_f32(residual + place), out);
        vst1q_f32(y + place, out);
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
      const int32x4x4_t products = vld4q_s32(acc + j * 4);
      for (int i = 0; i < 4; ++i) {
        float* sums = y + i * quarter + j;
        vst1q_f32(sums, vfmaq_f32(vld1q_f32(sums), vld1q_f32(weight_scales + i * rows + j),
                                  vcvtq_f32_s32(products.val[i])));
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

uint32_t magnitude_bits(float v) {
  return vget_lane_u32(vreinterpret_u32_f32(vdup_n_f32(v)), 0) & kMagnitudeMask;
}

// The bits of non-negative floats order like integers, with infinity above all numbers and NaN
// above infinity.
uint32_t absmax_bits(const float* x, int64_t columns) {
  uint32x4_t largest = vdupq_n_u32(0);
  int64_t c = 0;
  for (; c + 4 <= columns; c += 4) {
    const uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(x + c));
    largest = vmaxq_u32(largest, vandq_u32(bits, vdupq_n_u32(kMagnitudeMask)));
  }
  uint32_t result = vmaxvq_u32(largest);
  for (; c < columns; ++c) {
    const uint32_t candidate = magnitude_bits(x[c]);
    result = candidate > result ? candidate : result;
  }
  return result;
}

float quantize_row(const float* x, int64_t columns, int8_t* codes) {
  const uint32_t bits = absmax_bits(x, columns);
  const float absmax = vget_lane_f32(vreinterpret_f32_u32(vdup_n_u32(bits)), 0);
  if (bits >= kInfinityBits) {
    for (int64_t c = 0; c < columns; ++c) codes[c] = 0;
    return absmax / kActivationMax;
  }
  const float bounded = absmax < kScaleEps ? kScaleEps : absmax;
  const float inv_scale = kActivationMax / bounded;
  int64_t c = 0;
  for (; c + 8 <= columns; c += 8) {
    // vcvtn rounds ties to even.
    const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + c), inv_scale));
    const int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + c + 4), inv_scale));
    vst1_s8(codes + c, vqmovn_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high))));
  }
  for (; c < columns; ++c) codes[c] = static_cast<int8_t>(vcvtns_s32_f32(x[c] * inv_scale));
  return bounded / kActivationMax;
}

void scale_codes(const int8_t* codes, float scale, int64_t columns, float* x) {
  int64_t c = 0;
  for (; c + 8 <= columns; c += 8) {
    const int16x8_t wide = vmovl_s8(vld1_s8(codes + c));
    vst1q_f32(x + c, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), scale));
    vst1q_f32(x + c + 4, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide))), scale));
  }
  for (; c < columns; ++c) x[c] = scale * static_cast<float>(codes[c]);
}

// --- weights ---

double sum_lanes(const float* w, int64_t count, uint32_t sign_mask) {
  const uint32x4_t keep = vdupq_n_u32(sign_mask);
  float64x2_t lanes[8];  // lanes 2n and 2n + 1
  for (int n = 0; n < 8; ++n) lanes[n] = vdupq_n_f64(0);
  for (int64_t k = 0; k < count; k += 16) {
    // Adding the zeros beyond the end changes nothing: no lane is -0, as each starts as +0.
    float last[16] = {};
    const float* block = w + k;
    if (count - k < 16) {
      for (int64_t l = 0; l < count - k; ++l) last[l] = w[k + l];
      block = last;
    }
    for (int n = 0; n < 4; ++n) {
      const uint32x4_t bits = vandq_u32(vreinterpretq_u32_f32(vld1q_f32(block + 4 * n)), keep);
      const float32x4_t terms = vreinterpretq_f32_u32(bits);
      lanes[2 * n] = vaddq_f64(lanes[2 * n], vcvt_f64_f32(vget_low_f32(terms)));
      lanes[2 * n + 1] = vaddq_f64(lanes[2 * n + 1], vcvt_high_f64_f32(terms));
    }
  }
  for (int width = 4; width >= 1; width /= 2) {
    for (int n = 0; n < width; ++n) lanes[n] = vaddq_f64(lanes[n], lanes[n + width]);
  }
  return vgetq_lane_f64(lanes[0], 0) + vgetq_lane_f64(lanes[0], 1);
}

double sum_tile(const float* w, int64_t count) { return sum_lanes(w, count, 0xffffffffu); }
double sum_abs_tile(const float* w, int64_t count) { return sum_lanes(w, count, kMagnitudeMask); }

// Eight bytes from two vectors of four 32-bit elements.
void store_bytes(uint32x4_t low, uint32x4_t high, uint8_t* out) {
  vst1_u8(out, vmovn_u16(vcombine_u16(vmovn_u32(low), vmovn_u32(high))));
}

// RoundClip(v, -1, 1) with ties to even is (v > 0.5) - (v < -0.5); a true comparison is all ones,
// that is -1.
uint32x4_t ternary_code(const float* w, float inv_scale) {
  const float32x4_t scaled = vmulq_n_f32(vld1q_f32(w), inv_scale);
  const uint32x4_t above = vcgtq_f32(scaled, vdupq_n_f32(0.5f));
  const uint32x4_t below = vcltq_f32(scaled, vdupq_n_f32(-0.5f));
  return vaddq_u32(vsubq_u32(vdupq_n_u32(1), above), below);
}

uint32x4_t binary_code(const float* w, float mean) {
  const float32x4_t centred = vsubq_f32(vld1q_f32(w), vdupq_n_f32(mean));
  return vandq_u32(vcgtq_f32(centred, vdupq_n_f32(0.0f)), vdupq_n_u32(2));
}

template <uint32x4_t (*kCode)(const float*, float)>
void pack(const float* w, int64_t row_stride, int64_t columns, const float* constants,
          uint8_t* packed) {
  for (int64_t c = 0; c < columns; c += 8) {
    uint32x4_t low = vdupq_n_u32(0), high = vdupq_n_u32(0);
    for (int i = 0; i < 4; ++i) {
      const float* row = w + i * row_stride + c;
      const int32x4_t shift = vdupq_n_s32(2 * i);
      low = vorrq_u32(low, vshlq_u32(kCode(row, constants[i]), shift));
      high = vorrq_u32(high, vshlq_u32(kCode(row + 4, constants[i]), shift));
    }
    store_bytes(low, high, packed + c);
  }
}

void unpack_scaled(const uint8_t* packed, int64_t columns, const float* scales, float* w,
                   int64_t row_stride) {
  for (int64_t c = 0; c < columns; c += 8) {
    uint8x8_t bytes = vld1_u8(packed + c);
    for (int i = 0; i < 4; ++i) {
      const uint8x8_t codes = vand_u8(bytes, vdup_n_u8(3));
      const int16x8_t trits = vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(codes)), vdupq_n_s16(1));
      float* row = w + i * row_stride + c;
      vst1q_f32(row, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(trits))), scales[i]));
      vst1q_f32(row + 4, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(trits))), scales[i]));
      bytes = vshr_n_u8(bytes, 2);
    }
  }
}

}  // namespace

const IntegerKernels kIntegerNeon = {
    .name = "neon",
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
    .pack_ternary = pack<ternary_code>,
    .pack_binary = pack<binary_code>,
    .unpack_scaled = unpack_scaled,
};

}  // namespace bitnet::cpu
