// SPDX-License-Identifier: MIT
// The operands and results of row operations, and their comparison.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "tests/cuda/act_tensors.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"

namespace bitnet::test {

using Floats = std::vector<float>;

inline constexpr float kEps = 1e-5f;

inline Floats random_floats(std::uint32_t seed, std::int64_t count, double mean = 0.0) {
  const std::vector<double> x = random_numbers(seed, count, 1.0, mean);
  return {x.begin(), x.end()};
}

// Makes tensors of one shape on a backend.
struct Operands {
  Tensor of(const Floats& values, DType type = DType::f32) const {
    return act_to_device(be, type, shape, values);
  }
  Tensor random(std::uint32_t seed) const { return of(random_floats(seed, shape.elements())); }
  Tensor gain(std::uint32_t seed) const {
    return to_device(be, {shape[1]}, random_floats(seed, shape[1], 1.0));
  }
  Tensor empty(DType type = DType::f32) const { return be.make_tensor(type, shape); }
  Tensor stats() const { return be.make_tensor(DType::f32, {shape[0], 2}); }
  Backend& be;
  Shape shape;
};

struct Quantized {
  explicit Quantized(const Operands& make)
      : codes(make.be.make_tensor(DType::i8, make.shape)),
        act_scale(make.be.make_tensor(DType::f32, {make.shape[0]})),
        stats(make.stats()) {}
  Tensor codes, act_scale, stats;
};

// Equal bits, but for those of a NaN.
inline bool same(const Floats& a, const Floats& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y) ||
           (std::isnan(x) && std::isnan(y));
  });
}

inline void check_equal(Backend& be, const Quantized& a, const Quantized& b) {
  CHECK(to_host<std::int8_t>(be, a.codes) == to_host<std::int8_t>(be, b.codes));
  CHECK(same(floats_of(be, a.act_scale), floats_of(be, b.act_scale)));
  CHECK(same(floats_of(be, a.stats), floats_of(be, b.stats)));
}

// max |a - b| / bound, where b is exact but for as much rounding as a.
inline double distance(const Floats& a, const Floats& b, const std::vector<double>& bound) {
  return worst_ratio(a, std::vector<double>(b.begin(), b.end()), bound);
}

}  // namespace bitnet::test
