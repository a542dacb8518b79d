// SPDX-License-Identifier: MIT
// The plain twin of every integer kernel: what the tests compare the vector ones with, and what
// runs where there is no other.
#include <algorithm>
#include <bit>
#include <cmath>

#include "core/cpu/integer_kernels.h"

namespace bitnet::cpu {
namespace {

constexpr float kScaleEps = 1e-5f;  // as in core/quant/ternary.h
constexpr float kActivationMax = 127.0f;
constexpr std::uint32_t kInfinityBits = 0x7f800000u;

void packed_dot(const std::uint8_t* packed_row, std::int64_t columns, const std::int8_t* x,
                std::int64_t x_stride, const std::int32_t* x_sums, std::int64_t tokens,
                std::int32_t* acc, std::int64_t acc_stride) {
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (int i = 0; i < 4; ++i) {
      std::uint32_t sum = 0;  // unsigned, because it may wrap before the correction
      for (std::int64_t c = 0; c < columns; ++c) {
        const int code = (packed_row[c] >> (2 * i)) & 3;
        sum += static_cast<std::uint32_t>(code * x[t * x_stride + c]);
      }
      acc[t * acc_stride + i] =
          static_cast<std::int32_t>(sum - static_cast<std::uint32_t>(x_sums[t]));
    }
  }
}

void packed_rows_dot(const std::uint8_t* packed, std::int64_t rows, std::int64_t columns,
                     const std::int8_t* x, std::int32_t x_sum, std::int64_t /*ahead*/,
                     std::int32_t* acc) {
  for (std::int64_t j = 0; j < rows; ++j) {
    packed_dot(packed + j * columns, columns, x, columns, &x_sum, 1, acc + j * 4, 4);
  }
}

std::int32_t sum_codes(const std::int8_t* x, std::int64_t columns) {
  std::int32_t sum = 0;
  for (std::int64_t c = 0; c < columns; ++c) sum += x[c];
  return sum;
}

void store_products(const std::int32_t* acc, std::int64_t tokens, std::int64_t rows,
                    const float* act_scale, float weight_scale, const float* residual, float* y,
                    std::int64_t y_stride, std::int64_t quarter) {
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float scale = act_scale[t] * weight_scale;
    for (int i = 0; i < 4; ++i) {
      for (std::int64_t j = 0; j < rows; ++j) {
        const std::int64_t place = t * y_stride + i * quarter + j;
        const float product = scale * static_cast<float>(acc[(t * rows + j) * 4 + i]);
        y[place] = residual != nullptr ? residual[place] + product : product;
      }
    }
  }
}

void add_group_products(const std::int32_t* acc, std::int64_t tokens, std::int64_t rows,
                        const float* weight_scales, float* y, std::int64_t y_stride,
                        std::int64_t quarter) {
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (int i = 0; i < 4; ++i) {
      for (std::int64_t j = 0; j < rows; ++j) {
        float& sum = y[t * y_stride + i * quarter + j];
        const auto product = static_cast<float>(acc[(t * rows + j) * 4 + i]);
        sum = std::fma(weight_scales[i * rows + j], product, sum);
      }
    }
  }
}

// The bits of non-negative floats order like integers, with infinity above all numbers and NaN
// above infinity.
float quantize_row(const float* x, std::int64_t columns, std::int8_t* codes) {
  std::uint32_t absmax_bits = 0;
  for (std::int64_t c = 0; c < columns; ++c) {
    absmax_bits = std::max(absmax_bits, std::bit_cast<std::uint32_t>(x[c]) & 0x7fffffffu);
  }
  const auto absmax = std::bit_cast<float>(absmax_bits);
  if (absmax_bits >= kInfinityBits) {
    std::fill(codes, codes + columns, std::int8_t{0});
    return absmax / kActivationMax;
  }
  const float bounded = std::max(absmax, kScaleEps);
  const float inv_scale = kActivationMax / bounded;
  for (std::int64_t c = 0; c < columns; ++c) {
    codes[c] = static_cast<std::int8_t>(std::lrint(x[c] * inv_scale));  // |x * inv_scale| < 127.5
  }
  return bounded / kActivationMax;
}

void scale_codes(const std::int8_t* codes, float scale, std::int64_t columns, float* x) {
  for (std::int64_t c = 0; c < columns; ++c) x[c] = scale * static_cast<float>(codes[c]);
}

template <typename Term>
double sum_lanes(const float* w, std::int64_t count, const Term& term) {
  double lanes[16] = {};
  for (std::int64_t k = 0; k < count; ++k) lanes[k % 16] += static_cast<double>(term(w[k]));
  for (int width = 8; width >= 1; width /= 2) {
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

double sum_tile(const float* w, std::int64_t count) {
  return sum_lanes(w, count, [](float v) { return v; });
}

double sum_abs_tile(const float* w, std::int64_t count) {
  return sum_lanes(w, count, [](float v) { return std::fabs(v); });
}

template <typename Code>
void pack(const float* w, std::int64_t row_stride, std::int64_t columns, std::uint8_t* packed,
          const Code& code) {
  for (std::int64_t c = 0; c < columns; ++c) {
    unsigned byte = 0;
    for (int i = 0; i < 4; ++i) byte |= code(w[i * row_stride + c], i) << (2 * i);
    packed[c] = static_cast<std::uint8_t>(byte);
  }
}

// RoundClip(v, -1, 1) with ties to even is (v > 0.5) - (v < -0.5).
void pack_ternary(const float* w, std::int64_t row_stride, std::int64_t columns,
                  const float* inv_scales, std::uint8_t* packed) {
  pack(w, row_stride, columns, packed, [inv_scales](float v, int i) {
    const float scaled = v * inv_scales[i];
    return 1u + (scaled > 0.5f ? 1u : 0u) - (scaled < -0.5f ? 1u : 0u);
  });
}

void pack_binary(const float* w, std::int64_t row_stride, std::int64_t columns, const float* means,
                 std::uint8_t* packed) {
  pack(w, row_stride, columns, packed,
       [means](float v, int i) { return v - means[i] > 0.0f ? 2u : 0u; });
}

void unpack_scaled(const std::uint8_t* packed, std::int64_t columns, const float* scales, float* w,
                   std::int64_t row_stride) {
  for (int i = 0; i < 4; ++i) {
    for (std::int64_t c = 0; c < columns; ++c) {
      const int trit = ((packed[c] >> (2 * i)) & 3) - 1;
      w[i * row_stride + c] = scales[i] * static_cast<float>(trit);
    }
  }
}

}  // namespace

const IntegerKernels kIntegerScalar = {
    .name = "scalar",
    .token_block = 1,
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
