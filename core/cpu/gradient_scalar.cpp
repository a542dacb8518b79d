// SPDX-License-Identifier: MIT
// The plain twin of every gradient kernel: what the tests compare the vector ones with, and what
// runs where there is no other.
#include <algorithm>
#include <bit>
#include <cmath>

#include "core/cpu/gradient_kernels.h"

namespace bitnet::cpu {
namespace {

// The bits of non-negative floats order like integers, with infinity above all numbers and NaN
// above infinity.
float larger_magnitude(float magnitude, float x) {
  return std::bit_cast<float>(std::max(std::bit_cast<std::uint32_t>(magnitude),
                                       std::bit_cast<std::uint32_t>(x) & 0x7fffffffu));
}

void absmax(const float* dy, std::int64_t tokens, std::int64_t columns, const float* act_scale,
            float* row_absmax, float* column_absmax) {
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* row = dy + t * columns;
    float largest = 0;
    for (std::int64_t n = 0; n < columns; ++n) {
      largest = larger_magnitude(largest, row[n]);
      column_absmax[n] = larger_magnitude(column_absmax[n], row[n] * act_scale[t]);
    }
    row_absmax[t] = largest;
  }
}

// |value * inv_scale| < 127.5.
std::int8_t code(float value, float inv_scale) {
  return inv_scale == 0 ? std::int8_t{0} : static_cast<std::int8_t>(std::lrint(value * inv_scale));
}

std::int32_t quantize_row(const float* dy, std::int64_t quarter, std::int64_t count,
                          float inv_scale, std::int8_t* codes) {
  std::int32_t sum = 0;
  for (std::int64_t r = 0; r < count; ++r) {
    for (std::int64_t i = 0; i < 4; ++i) {
      codes[4 * r + i] = code(dy[i * quarter + r], inv_scale);
      sum += codes[4 * r + i];
    }
  }
  return sum;
}

void quantize_columns(const float* dy, std::int64_t tokens, std::int64_t columns,
                      const float* act_scale, const float* inv_scales, std::int8_t* codes,
                      std::int32_t* sums) {
  const std::int64_t padded = (tokens + 3) / 4 * 4;
  for (std::int64_t n = 0; n < columns; ++n) {
    std::int8_t* column = codes + n * kGradientTile;
    sums[n] = 0;
    for (std::int64_t t = 0; t < padded; ++t) {
      column[t] =
          t < tokens ? code(dy[t * columns + n] * act_scale[t], inv_scales[n]) : std::int8_t{0};
      sums[n] += column[t];
    }
  }
}

void store_scaled(const std::int32_t* acc, std::int64_t rows, const float* scales, float* y,
                  std::int64_t y_stride) {
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t o = 0; o < kGradientPanel; ++o) {
      y[t * y_stride + o] = scales[t] * static_cast<float>(acc[t * kGradientPanel + o]);
    }
  }
}

void add_scaled(const std::int32_t* acc, std::int64_t rows, const float* scales, float* y,
                std::int64_t y_stride) {
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t o = 0; o < kGradientPanel; ++o) {
      float& out = y[t * y_stride + o];
      out = std::fma(scales[t], static_cast<float>(acc[t * kGradientPanel + o]), out);
    }
  }
}

}  // namespace

const GradientKernels kGradientScalar = {
    .name = "scalar",
    .absmax = absmax,
    .quantize_row = quantize_row,
    .quantize_columns = quantize_columns,
    .store_scaled = store_scaled,
    .add_scaled = add_scaled,
};

}  // namespace bitnet::cpu
