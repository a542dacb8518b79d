// SPDX-License-Identifier: MIT
// Panel kernels for 64-bit ARM with the dot-product extension: sdot multiplies signed bytes, so
// codes 0..2 and signed values take the same path.
#include <arm_neon.h>

#include <cstdint>

#include "core/cpu/panel_kernels.h"

namespace bitnet::cpu {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint8_t;

constexpr int kRowBlock = 6;  // 4 registers of 4 outputs x 6 rows = 24 accumulators of 32 registers

// --- products ---

// acc[t][0 .. 15] += the products of 16 outputs.
template <int kRows>
void output_block(const int8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                  int32_t* acc) {
  int32x4_t sums[kRows][4];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums[t][i] = vld1q_s32(acc + t * kPanelWidth + 4 * i);
  }
  for (int64_t s = 0; s < steps; ++s) {
    int8x16_t lines[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) lines[i] = vld1q_s8(panel + s * kPanelStep + 16 * i);
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      int32_t four;
      __builtin_memcpy(&four, rows + t * row_stride + 4 * s, sizeof four);
      const int8x16_t row = vreinterpretq_s8_s32(vdupq_n_s32(four));
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sums[t][i] = vdotq_s32(sums[t][i], lines[i], row);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) vst1q_s32(acc + t * kPanelWidth + 4 * i, sums[t][i]);
  }
}

template <int kRows>
void row_block(const int8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
               int32_t* acc) {
  for (int64_t o = 0; o < kPanelWidth; o += 16) {
    output_block<kRows>(panel + 4 * o, steps, rows, row_stride, acc + o);
  }
}

void products(const int8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
              int64_t row_count, int32_t* acc) {
  for (; row_count >= kRowBlock; row_count -= kRowBlock) {
    row_block<kRowBlock>(panel, steps, rows, row_stride, acc);
    rows += kRowBlock * row_stride;
    acc += kRowBlock * kPanelWidth;
  }
  switch (row_count) {
    case 1:
      return row_block<1>(panel, steps, rows, row_stride, acc);
    case 2:
      return row_block<2>(panel, steps, rows, row_stride, acc);
    case 3:
      return row_block<3>(panel, steps, rows, row_stride, acc);
    case 4:
      return row_block<4>(panel, steps, rows, row_stride, acc);
    case 5:
      return row_block<5>(panel, steps, rows, row_stride, acc);
    default:
      return;
  }
}

// acc[t][o] = [acc[t][o] +] start
void start_row(int32x4_t start, bool accumulate, int32_t* acc) {
  for (int64_t o = 0; o < kPanelWidth; o += 4) {
    vst1q_s32(acc + o, accumulate ? vaddq_s32(vld1q_s32(acc + o), start) : start);
  }
}

void ternary_products(const uint8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                      const int32_t* row_sums, int64_t row_count, bool accumulate, int32_t* acc) {
  for (int64_t t = 0; t < row_count; ++t) {
    start_row(vnegq_s32(vdupq_n_s32(row_sums[t])), accumulate, acc + t * kPanelWidth);
  }
  products(reinterpret_cast<const int8_t*>(panel), steps, rows, row_stride, row_count, acc);
}

void signed_products(const int8_t* panel, int64_t steps, const int8_t* rows, int64_t row_stride,
                     const int32_t*, int64_t row_count, bool accumulate, int32_t* acc) {
  if (!accumulate) {
    for (int64_t t = 0; t < row_count; ++t) start_row(vdupq_n_s32(0), false, acc + t * kPanelWidth);
  }
  products(panel, steps, rows, row_stride, row_count, acc);
}

void row_sums(const int8_t* rows, int64_t row_stride, int64_t columns, int64_t row_count,
              int32_t* sums) {
  for (int64_t t = 0; t < row_count; ++t) {
    int32x4_t sum = vdupq_n_s32(0);
    for (int64_t c = 0; c < columns; c += 16) {
      sum = vdotq_s32(sum, vld1q_s8(rows + t * row_stride + c), vdupq_n_s8(1));
    }
    sums[t] = vaddvq_s32(sum);
  }
}

// --- panels ---

// The codes of quarter i of the packed bytes.
void split_codes(uint8x16_t packed, uint8x16_t codes[4]) {
  const uint8x16_t mask = vdupq_n_u8(3);
  codes[0] = vandq_u8(packed, mask);
  codes[1] = vandq_u8(vshrq_n_u8(packed, 2), mask);
  codes[2] = vandq_u8(vshrq_n_u8(packed, 4), mask);
  codes[3] = vshrq_n_u8(packed, 6);
}

void forward_panel(const uint8_t* packed, int64_t row_stride, int64_t packed_rows, int64_t columns,
                   uint8_t* panel) {
  for (int64_t c = 0; c < columns; c += 16) {
    for (int64_t first = 0; first < 16; first += 4) {
      uint32x4_t rows[4];
      for (int j = 0; j < 4; ++j) {
        rows[j] = vreinterpretq_u32_u8(first + j < packed_rows
                                           ? vld1q_u8(packed + (first + j) * row_stride + c)
                                           : vdupq_n_u8(0x55));  // four codes 1
      }
      // steps[s]: element s of each row.
      const uint32x4_t even01 = vtrn1q_u32(rows[0], rows[1]);
      const uint32x4_t odd01 = vtrn2q_u32(rows[0], rows[1]);
      const uint32x4_t even23 = vtrn1q_u32(rows[2], rows[3]);
      const uint32x4_t odd23 = vtrn2q_u32(rows[2], rows[3]);
      const uint32x4_t steps[4] = {
          vcombine_u32(vget_low_u32(even01), vget_low_u32(even23)),
          vcombine_u32(vget_low_u32(odd01), vget_low_u32(odd23)),
          vcombine_u32(vget_high_u32(even01), vget_high_u32(even23)),
          vcombine_u32(vget_high_u32(odd01), vget_high_u32(odd23)),
      };
      for (int s = 0; s < 4; ++s) {
        uint8x16_t codes[4];
        split_codes(vreinterpretq_u8_u32(steps[s]), codes);
        uint8_t* lines = panel + (c / 4 + s) * kPanelStep + 4 * first;
        for (int i = 0; i < 4; ++i) vst1q_u8(lines + 64 * i, codes[i]);
      }
    }
  }
}

void input_gradient_panel(const uint8_t* packed, int64_t row_stride, int64_t packed_rows,
                          uint8_t* panel) {
  for (int64_t r = 0; r < packed_rows; ++r) {
    for (int64_t c = 0; c < kPanelWidth; c += 16) {
      uint8x16x4_t codes;
      split_codes(vld1q_u8(packed + r * row_stride + c), codes.val);
      vst4q_u8(panel + r * kPanelStep + c * 4, codes);
    }
  }
}

void weight_gradient_panel(const int8_t* x, int64_t row_stride, int64_t tokens, int8_t* panel) {
  for (int64_t t = 0; t < tokens; t += 4) {
    for (int64_t c = 0; c < kPanelWidth; c += 16) {
      int8x16x4_t rows;
      for (int b = 0; b < 4; ++b) {
        rows.val[b] = t + b < tokens ? vld1q_s8(x + (t + b) * row_stride + c) : vdupq_n_s8(0);
      }
      vst4q_s8(panel + t / 4 * kPanelStep + c * 4, rows);
    }
  }
}

// --- write-back ---

void store_products(const int32_t* acc, int64_t tokens, int64_t packed_rows, const float* act_scale,
                    float weight_scale, const float* residual, float* y, int64_t y_stride,
                    int64_t quarter) {
  for (int64_t t = 0; t < tokens; ++t) {
    const float scale = act_scale[t] * weight_scale;
    for (int64_t i = 0; i < 4; ++i) {
      const int32_t* sums = acc + t * kPanelWidth + 16 * i;
      const int64_t first = t * y_stride + i * quarter;
      int64_t j = 0;
      for (; j + 4 <= packed_rows; j += 4) {
        float32x4_t out = vmulq_n_f32(vcvtq_f32_s32(vld1q_s32(sums + j)), scale);
        if (residual != nullptr) out = vaddq_f32(vld1q_f32(residual + first + j), out);
        vst1q_f32(y + first + j, out);
      }
      for (; j < packed_rows; ++j) {
        const float product = scale * static_cast<float>(sums[j]);
        y[first + j] = residual != nullptr ? residual[first + j] + product : product;
      }
    }
  }
}

}  // namespace

const PanelKernels kPanelNeon = {
    .name = "neon",
    .block_rows = kRowBlock,
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
