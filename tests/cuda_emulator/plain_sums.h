// SPDX-License-Identifier: MIT
// The sums of core/quant/ternary.h as plain loops, and numbers to sum.
#pragma once

#include <algorithm>
#include <cstddef>
#include <random>
#include <vector>

namespace bitnet::test {

// Of term(x[k]): tiles of 4096, 16 lanes in each, folded in halves; the tile sums in ascending order.
template <typename Term>
double plain_sum(const float* x, std::size_t count, const Term& term) {
  constexpr std::size_t kTile = 4096, kLanes = 16;
  double sum = 0;
  for (std::size_t first = 0; first < count; first += kTile) {
    double lanes[kLanes] = {};
    for (std::size_t k = 0; k < std::min(kTile, count - first); ++k) {
      lanes[k % kLanes] += term(static_cast<double>(x[first + k]));
    }
    for (std::size_t half = kLanes / 2; half >= 1; half /= 2) {
      for (std::size_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    }
    sum += lanes[0];
  }
  return sum;
}

inline std::vector<float> plain_numbers(std::size_t count, unsigned seed, float mean = 0.05f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(mean, 1.0f);
  std::vector<float> x(count);
  for (float& v : x) v = normal(random);
  return x;
}

}  // namespace bitnet::test
