// SPDX-License-Identifier: MIT
// What the reference needs of its number type, double or std::complex<double>. Comparisons look at
// the real part, so that a complex number with a tiny imaginary part carries a derivative through
// the whole model (the complex step).
#pragma once

#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <vector>

namespace bitnet::reference {

using Complex = std::complex<double>;

inline double real_part(double x) { return x; }
inline double real_part(const Complex& z) { return z.real(); }

// `value` with the imaginary part of z: how a straight-through estimator passes a derivative by a
// rounding.
inline double straight_through(double value, double /*z*/) { return value; }
inline Complex straight_through(double value, const Complex& z) { return {value, z.imag()}; }

inline double erf(double x) { return std::erf(x); }
// First order in the imaginary part, which is all that a complex step of 1e-40 can see.
inline Complex erf(const Complex& z) {
  const double slope = 2.0 * std::numbers::inv_sqrtpi * std::exp(-z.real() * z.real());
  return {std::erf(z.real()), slope * z.imag()};
}

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

template <typename T>
std::vector<T> zeros(std::int64_t count) {
  return std::vector<T>(at(count), T(0));
}

}  // namespace bitnet::reference
