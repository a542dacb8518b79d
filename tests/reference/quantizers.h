// SPDX-License-Identifier: MIT
// The papers' quantisers followed by their dequantisation, with the straight-through estimator
// built in: the real part is quantised, the imaginary part passes unchanged. So the complex step of
// a model made of these functions differentiates exactly the surrogate that training uses. Scales
// and codes are computed in fp32 as core/quant/ternary.h specifies, because a code is a decision:
// it must be taken on the same numbers.
#pragma once

#include <algorithm>
#include <vector>

#include "core/quant/ternary.h"
#include "tests/reference/number.h"

namespace bitnet::reference {

// How near (in units of a code) any rounding came to a tie; a comparison with fp32 code is only
// meaningful when no decision was closer than fp32 can resolve.
struct TieDistance {
  double least = 0.5;
  void see(double scaled) {
    const double part = std::abs(scaled) - std::floor(std::abs(scaled));
    least = std::min(least, std::abs(part - 0.5));
  }
};

// max(mean |w|, 1e-5), b1.58 Eq. 3 and b1 Eq. 12; or the lower median, 2407.09527.
inline float reference_scale(ScaleMeasure measure, std::vector<float> magnitudes) {
  double scale = 0;
  if (measure == ScaleMeasure::absmean) {
    for (const float w : magnitudes) scale += w;
    scale /= double(magnitudes.size());
  } else {
    const auto middle = magnitudes.begin() + std::ptrdiff_t((magnitudes.size() - 1) / 2);
    std::nth_element(magnitudes.begin(), middle, magnitudes.end());
    scale = *middle;
  }
  return std::max(float(scale), 1e-5f);
}

// One group of weights that shares a scale, in place.
//   b1.58: scale · RoundClip(w / scale, -1, 1);   b1: scale · Sign(w - mean w), Sign(0) = -1.
template <typename T>
void quantize_weight_group(const WeightQuantizer& q, T* w, std::int64_t count) {
  std::vector<float> magnitudes;
  double mean = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    magnitudes.push_back(std::abs(float(real_part(w[i]))));
    mean += real_part(w[i]) / double(count);
  }
  const float scale = reference_scale(q.measure, std::move(magnitudes)), inv_scale = 1.0f / scale;
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = float(real_part(w[i]));
    const float code = q.kind == LinearKind::b1
                           ? (value > float(mean) ? 1.0f : -1.0f)
                           : std::clamp(std::nearbyint(value * inv_scale), -1.0f, 1.0f);
    w[i] = straight_through(double(scale) * code, w[i]);
  }
}

template <typename T>
std::vector<T> quantize_weights(const WeightQuantizer& q, std::vector<T> w) {
  const auto group = q.group_size > 0 ? q.group_size : std::int64_t(w.size());
  for (std::int64_t first = 0; first < std::int64_t(w.size()); first += group)
    quantize_weight_group(q, &w[at(first)], group);
  return w;
}

// Per token: act_scale · clip(round(x · 127 / max|x|), -128, 127), act_scale = max|x| / 127.
template <typename T>
std::vector<T> quantize_activations(std::vector<T> x, std::int64_t width, TieDistance& ties) {
  for (std::size_t first = 0; first < x.size(); first += at(width)) {
    float largest = 1e-5f;
    for (std::size_t i = 0; i < at(width); ++i)
      largest = std::max(largest, std::abs(float(real_part(x[first + i]))));
    const float inv_scale = 127.0f / largest, scale = largest / 127.0f;
    for (std::size_t i = 0; i < at(width); ++i) {
      T& value = x[first + i];
      ties.see(real_part(value) * 127.0 / double(largest));
      const float code =
          std::clamp(std::nearbyint(float(real_part(value)) * inv_scale), -128.0f, 127.0f);
      value = straight_through(double(scale) * code, value);
    }
  }
  return x;
}

}  // namespace bitnet::reference
