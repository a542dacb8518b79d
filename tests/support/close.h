// SPDX-License-Identifier: MIT
// Comparison of fp32 results with a double reference, element by element, each with its own derived
// bound.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace bitnet::test {

// Largest relative error of one fp32 rounding. A sum of n products in any order is within (n + 1)
// kRounding sum |a b| (to first order).
inline constexpr double kRounding = 0x1p-24;

// max |actual - expected| / bound: at most 1 where all is well, infinite for NaN or different
// sizes. An element whose bound is 0 must be exact.
template <typename Actual>
double worst_ratio(const std::vector<Actual>& actual, const std::vector<double>& expected,
                   const std::vector<double>& bound) {
  if (actual.size() != expected.size() || bound.size() != expected.size()) return INFINITY;
  double worst = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(double(actual[i]) - expected[i]);
    const double ratio = error == 0 ? 0 : error / bound[i];
    worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
  }
  return worst;
}

// factor · |x| for each element; one way to make bounds, from a reference evaluated at absolute
// values.
inline std::vector<double> scaled_magnitudes(double factor, std::vector<double> x) {
  for (double& value : x) value = factor * std::abs(value);
  return x;
}

inline std::vector<double> magnitudes(std::vector<double> x) {
  return scaled_magnitudes(1.0, std::move(x));
}

inline std::vector<double> sum_of(std::vector<double> a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

}  // namespace bitnet::test
