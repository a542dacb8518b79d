// SPDX-License-Identifier: MIT
// What every fp32 kernel is made of: walking a row by lanes, reductions, exp and the normal
// distribution function. Included by each float_<isa>.cpp after its lanes_<isa>.h; the anonymous
// namespace gives each its own copy.
#pragma once

#include <cstdint>

#include "core/cpu/lanes_constants.h"

namespace bitnet::cpu {
namespace {

// body(i, part) for i = 0, 16, …; `part` is All{}, or First{count} at a row's end.
template <typename Body>
inline void each_lanes(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) body(i, All{});
  if (i < n) body(i, First{static_cast<int>(n - i)});
}

inline Lanes zero() { return set1(0.0f); }

// x, with `fill` beyond a row's end.
inline Lanes padded(All, Lanes x, Lanes) { return x; }
inline Lanes padded(First part, Lanes x, Lanes fill) { return blend_first(part, x, fill); }

inline float sum_lanes(Lanes x) {
  const Lanes four[4] = {x, zero(), zero(), zero()};
  float sums[4];
  sum4(four, sums);
  return sums[0];
}

inline void fill(float* x, std::int64_t n, float value) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = value;
}

// See kExpPolynomial. NaN stays NaN: it reaches the result through r.
inline Lanes exp(Lanes x) {
  const Lanes n = round_even(max(min(x * set1(kLog2E), set1(128.0f)), set1(-125.0f)));
  const Lanes r = fma(n, set1(-kLn2Low), fma(n, set1(-kLn2High), x));
  Lanes p = set1(kExpPolynomial[4]);
  p = fma(p, r, set1(kExpPolynomial[3]));
  p = fma(p, r, set1(kExpPolynomial[2]));
  p = fma(p, r, set1(kExpPolynomial[1]));
  p = fma(p, r, set1(kExpPolynomial[0]));
  p = fma(p * r, r, r) + set1(1.0f);
  // 2^n as 2 * 2^(n - 1): n may be 128.
  const Lanes y = (p + p) * power_of_two(n - set1(1.0f));
  const Lanes bounded = select_less(x, set1(kExpUnderflow), zero(), y);
  return select_less(set1(kExpOverflow), x, set1(__builtin_inff()), bounded);
}

struct Normal {
  Lanes cdf, density;  // Φ(x), φ(x)
};

// See kMillsPolynomial. Both with an absolute error of a few 2^-24.
inline Normal normal(Lanes x) {
  const Lanes one = set1(1.0f);
  const Lanes a = max(x, zero() - x);
  const Lanes t = one / fma(set1(kMillsShift), a, one);
  Lanes p = set1(kMillsPolynomial[9]);
  for (int i = 8; i >= 0; --i) p = fma(p, t, set1(kMillsPolynomial[i]));
  const Lanes e = exp(set1(-0.5f) * (a * a));
  const Lanes tail = e * (t * p);  // Φ(-a)
  return {select_less(x, zero(), tail, one - tail), e * set1(kInvSqrt2Pi)};
}

inline Lanes sigmoid(Lanes x) { return set1(1.0f) / (set1(1.0f) + exp(zero() - x)); }

// 16 lanes in double; plain loops, since the compiler may vectorise independent lanes without
// changing a bit.
inline double sum_lanes(double lanes[16]) {
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

}  // namespace
}  // namespace bitnet::cpu
