// SPDX-License-Identifier: MIT
// Derivatives without differences: f(x + i h) = f(x) + i h f'(x) + O(h²), so Im f / h is exact to
// rounding for a tiny h.
#pragma once

#include <cmath>
#include <vector>

#include "tests/reference/number.h"

namespace bitnet::reference {

inline constexpr double kComplexStep = 1e-40;

// Gradient at x of f: std::vector<Complex> -> Complex.
template <typename Function>
std::vector<double> complex_step_gradient(const Function& f, const std::vector<double>& x) {
  std::vector<Complex> z(x.begin(), x.end());
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    z[i] = {x[i], kComplexStep};
    gradient[i] = f(z).imag() / kComplexStep;
    z[i] = x[i];
  }
  return gradient;
}

// |a - b| / |b| in the Euclidean norm.
inline double relative_distance(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace bitnet::reference
