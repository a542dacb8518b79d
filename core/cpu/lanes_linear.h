// SPDX-License-Identifier: MIT
// y = x · wᵀ as dot products by lanes: a register tile of kTileRows x kTileOutputs accumulators
// shares its loads, and each output is still summed in the one order of float_kernels.h. Included
// by each float_<isa>.cpp after lanes_math.h.
#pragma once

#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

template <int kRows, int kOutputs>
inline void linear_tile(const float* x, const float* w, std::int64_t inputs, float* y,
                        std::int64_t y_stride) {
  constexpr int kSums = kRows * kOutputs;
  constexpr int kPadded = (kSums + 3) / 4 * 4;
  Lanes acc[kPadded];
  for (int i = 0; i < kPadded; ++i) acc[i] = zero();
  each_lanes(inputs, [&](std::int64_t k, auto part) {
    Lanes outputs[kOutputs];
    for (int n = 0; n < kOutputs; ++n) outputs[n] = load(w + n * inputs + k, part, zero());
    for (int r = 0; r < kRows; ++r) {
      const Lanes row = load(x + r * inputs + k, part, zero());
      for (int n = 0; n < kOutputs; ++n) {
        acc[r * kOutputs + n] = fma(row, outputs[n], acc[r * kOutputs + n]);
      }
    }
  });
  float sums[kPadded];
  for (int i = 0; i < kPadded; i += 4) sum4(acc + i, sums + i);
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kOutputs; ++n) y[r * y_stride + n] = sums[r * kOutputs + n];
  }
}

template <int kRows>
inline void linear_rows(const float* x, const float* w, float* y, std::int64_t y_stride,
                        std::int64_t outputs, std::int64_t inputs) {
  std::int64_t n = 0;
  for (; n + kTileOutputs <= outputs; n += kTileOutputs) {
    linear_tile<kRows, kTileOutputs>(x, w + n * inputs, inputs, y + n, y_stride);
  }
  for (; n < outputs; ++n) linear_tile<kRows, 1>(x, w + n * inputs, inputs, y + n, y_stride);
}

void linear(const float* x, const float* w, float* y, std::int64_t y_stride, std::int64_t rows,
            std::int64_t outputs, std::int64_t inputs) {
  std::int64_t t = 0;
  for (; t + kTileRows <= rows; t += kTileRows) {
    linear_rows<kTileRows>(x + t * inputs, w, y + t * y_stride, y_stride, outputs, inputs);
  }
  for (; t < rows; ++t) {
    linear_rows<1>(x + t * inputs, w, y + t * y_stride, y_stride, outputs, inputs);
  }
}

}  // namespace
}  // namespace bitnet::cpu
