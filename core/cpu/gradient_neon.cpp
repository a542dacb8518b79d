// SPDX-License-Identifier: MIT
// Gradient kernels for 64-bit ARM with the dot-product extension.
#include <arm_neon.h>

#include <cstdint>

#include "core/cpu/gradient_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;

constexpr int64_t kTokenBlock = 16;  // tokens of a transposed line of codes

// --- absmax ---

// The bits of non-negative floats order like integers, with infinity above all numbers and NaN
// above infinity.
uint32x4_t larger_magnitude(uint32x4_t magnitude, float32x4_t x) {
  const uint32x4_t bits = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fffffffu));
  return vmaxq_u32(magnitude, bits);
}

float max_of_lanes(uint32x4_t magnitudes) {
  return vget_lane_f32(vreinterpret_f32_u32(vdup_n_u32(vmaxvq_u32(magnitudes))), 0);
}

template <int kRows>
void absmax_rows(const float* dy, int64_t columns, const float* act_scale, float* row_absmax,
                 float* column_absmax) {
  uint32x4_t rows[kRows];
  for (int t = 0; t < kRows; ++t) rows[t] = vdupq_n_u32(0);
  for (int64_t n = 0; n < columns; n += 4) {
    uint32x4_t column = vreinterpretq_u32_f32(vld1q_f32(column_absmax + n));
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      const float32x4_t v = vld1q_f32(dy + t * columns + n);
      rows[t] = larger_magnitude(rows[t], v);
      column = larger_magnitude(column, vmulq_n_f32(v, act_scale[t]));
    }
    vst1q_f32(column_absmax + n, vreinterpretq_f32_u32(column));
  }
  for (int t = 0; t < kRows; ++t) row_absmax[t] = max_of_lanes(rows[t]);
}

void absmax(const float* dy, int64_t tokens, int64_t columns, const float* act_scale,
            float* row_absmax, float* column_absmax) {
  int64_t t = 0;
  for (; t + 8 <= tokens; t += 8) {
    absmax_rows<8>(dy + t * columns, columns, act_scale + t, row_absmax + t, column_absmax);
  }
  for (; t < tokens; ++t) {
    absmax_rows<1>(dy + t * columns, columns, act_scale + t, row_absmax + t, column_absmax);
  }
}

// --- codes ---

// Byte b of each element is the low byte of that element of codes[b].
int8x16_t join_bytes(const int32x4_t codes[4]) {
  const int32x4_t low = vsliq_n_s32(codes[0], codes[1], 8);
  const int32x4_t high = vsliq_n_s32(codes[2], codes[3], 8);
  return vreinterpretq_s8_s32(vsliq_n_s32(low, high, 16));
}

int32x4_t add_bytes(int32x4_t sums, int8x16_t codes) {
  return vdotq_s32(sums, codes, vdupq_n_s8(1));
}

int32_t quantize_row(const float* dy, int64_t quarter, int64_t count, float inv_scale,
                     int8_t* codes) {
  int32x4_t sums = vdupq_n_s32(0);
  int64_t r = 0;
  for (; r + 4 <= count; r += 4) {
    int32x4_t c[4];
    for (int i = 0; i < 4; ++i) {
      // vcvtn rounds ties to even, and a NaN to 0.
      c[i] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(dy + i * quarter + r), inv_scale));
    }
    const int8x16_t bytes = join_bytes(c);
    sums = add_bytes(sums, bytes);
    vst1q_s8(codes + 4 * r, bytes);
  }
  int32_t sum = vaddvq_s32(sums);
  for (; r < count; ++r) {
    for (int64_t i = 0; i < 4; ++i) {
      codes[4 * r + i] = static_cast<int8_t>(vcvtns_s32_f32(dy[i * quarter + r] * inv_scale));
      sum += codes[4 * r + i];
    }
  }
  return sum;
}

// In place: element k of v[j] becomes element j of v[k].
void transpose_4x4(int32x4_t v[4]) {
  const int32x4_t a0 = vtrn1q_s32(v[0], v[1]), a1 = vtrn2q_s32(v[0], v[1]);
  const int32x4_t a2 = vtrn1q_s32(v[2], v[3]), a3 = vtrn2q_s32(v[2], v[3]);
  v[0] = vcombine_s32(vget_low_s32(a0), vget_low_s32(a2));
  v[1] = vcombine_s32(vget_low_s32(a1), vget_low_s32(a3));
  v[2] = vcombine_s32(vget_high_s32(a0), vget_high_s32(a2));
  v[3] = vcombine_s32(vget_high_s32(a1), vget_high_s32(a3));
}

// kTokenBlock tokens, of which `tokens` exist, of four columns.
void token_block(const float* dy, int64_t tokens, int64_t columns, const float* act_scale,
                 float32x4_t inv, int8_t* codes, int32x4_t& sums) {
  int32x4_t v[4];
  for (int s = 0; s < 4; ++s) {
    int32x4_t c[4];
    for (int b = 0; b < 4; ++b) {
      const int64_t t = 4 * s + b;
      c[b] = vdupq_n_s32(0);
      if (t < tokens) {
        const float32x4_t folded = vmulq_n_f32(vld1q_f32(dy + t * columns), act_scale[t]);
        c[b] = vcvtnq_s32_f32(vmulq_f32(folded, inv));
      }
    }
    const int8x16_t bytes = join_bytes(c);
    sums = add_bytes(sums, bytes);
    v[s] = vreinterpretq_s32_s8(bytes);
  }
  transpose_4x4(v);
  for (int n = 0; n < 4; ++n) vst1q_s8(codes + n * kGradientTile, vreinterpretq_s8_s32(v[n]));
}

void quantize_columns(const float* dy, int64_t tokens, int64_t columns, const float* act_scale,
                      const float* inv_scales, int8_t* codes, int32_t* sums) {
  for (int64_t n = 0; n < columns; n += 4) {
    const float32x4_t inv = vld1q_f32(inv_scales + n);
    int32x4_t column_sums = vdupq_n_s32(0);
    for (int64_t t = 0; t < tokens; t += kTokenBlock) {
      token_block(dy + t * columns + n, tokens - t, columns, act_scale + t, inv,
                  codes + n * kGradientTile + t, column_sums);
    }
    vst1q_s32(sums + n, column_sums);
  }
}

// --- write-back ---

void store_scaled(const int32_t* acc, int64_t rows, const float* scales, float* y,
                  int64_t y_stride) {
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t o = 0; o < kGradientPanel; o += 4) {
      const float32x4_t sums = vcvtq_f32_s32(vld1q_s32(acc + t * kGradientPanel + o));
      vst1q_f32(y + t * y_stride + o, vmulq_n_f32(sums, scales[t]));
    }
  }
}

void add_scaled(const int32_t* acc, int64_t rows, const float* scales, float* y, int64_t y_stride) {
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t o = 0; o < kGradientPanel; o += 4) {
      float* out = y + t * y_stride + o;
      const float32x4_t sums = vcvtq_f32_s32(vld1q_s32(acc + t * kGradientPanel + o));
      vst1q_f32(out, vfmaq_n_f32(vld1q_f32(out), sums, scales[t]));
    }
  }
}

}  // namespace

const GradientKernels kGradientNeon = {
    .name = "neon",
    .absmax = absmax,
    .quantize_row = quantize_row,
    .quantize_columns = quantize_columns,
    .store_scaled = store_scaled,
    .add_scaled = add_scaled,
};

}  // namespace bitnet::cpu
