// SPDX-License-Identifier: MIT
// AdamW against the same operations in a plain loop: equal bits in every execution.
#include "cuda/adamw.h"

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;

constexpr AdamWFactors kFactors = {.grad_scale = 0.7f,
                                   .decay = 0.999f,
                                   .one_minus_beta1 = 0.1f,
                                   .beta2 = 0.95f,
                                   .one_minus_beta2 = 0.05f,
                                   .inv_sqrt_bias2 = 2.1f,
                                   .eps = 1e-8f,
                                   .step_size = 0.013f};

struct State {
  std::vector<float> gradient, parameter, m, v;
};

State random_state(std::size_t count) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  State s;
  for (std::size_t i = 0; i < count; ++i) {
    s.gradient.push_back(normal(random));
    s.parameter.push_back(normal(random));
    s.m.push_back(0.1f * normal(random));
    s.v.push_back(std::abs(normal(random)));
  }
  return s;
}

void step(State& s, bool decays) {
  AdamWFactors f = kFactors;
  if (!decays) f.decay = 1.0f;
  for (std::size_t i = 0; i < s.m.size(); ++i) {
    const float g = s.gradient[i] * f.grad_scale;
    s.m[i] = std::fma(f.one_minus_beta1, g - s.m[i], s.m[i]);
    s.v[i] = std::fma(f.one_minus_beta2 * g, g, s.v[i] * f.beta2);
    const float denominator = std::fma(std::sqrt(s.v[i]), f.inv_sqrt_bias2, f.eps);
    s.parameter[i] = std::fma(-f.step_size, s.m[i] / denominator, s.parameter[i] * f.decay);
  }
}

TEST_CASE("The AdamW steps of many parameters have the bits of the plain loop") {
  // Around a quad and the 4096 elements of a block; none; and more than a launch takes.
  std::vector<std::size_t> sizes = {1, 4, 0, 4095, 4096, 4101, 8200};
  while (sizes.size() < 100) sizes.push_back(sizes.size() % 7);
  std::size_t count = 0;
  for (const std::size_t size : sizes) count += size;
  const State start = random_state(count);
  State expected;
  std::size_t first = 0;
  const auto decays = [](std::size_t i) { return i % 3 != 1; };
  const auto part = [&](const std::vector<float>& x, std::size_t size) {
    const auto from = x.begin() + static_cast<std::ptrdiff_t>(first);
    return std::vector<float>(from, from + static_cast<std::ptrdiff_t>(size));
  };
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    State s{part(start.gradient, sizes[i]), part(start.parameter, sizes[i]),
            part(start.m, sizes[i]), part(start.v, sizes[i])};
    step(s, decays(i));
    expected.parameter.insert(expected.parameter.end(), s.parameter.begin(), s.parameter.end());
    expected.m.insert(expected.m.end(), s.m.begin(), s.m.end());
    expected.v.insert(expected.v.end(), s.v.begin(), s.v.end());
    first += sizes[i];
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> gradient(start.gradient), parameter(start.parameter), m(start.m), v(start.v);
    std::vector<AdamW> ops;
    std::int64_t at = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const auto size = static_cast<std::int64_t>(sizes[i]);
      ops.push_back({gradient.data() + at, parameter.data() + at, m.data() + at, v.data() + at,
                     size, decays(i)});
      at += size;
    }
    REQUIRE(cuda_error(adamw(kFactors, ops, stream)) == "");
    CHECK(parameter.to_host() == expected.parameter);
    CHECK(m.to_host() == expected.m);
    CHECK(v.to_host() == expected.v);
    CHECK(gradient.to_host() == start.gradient);
  });
}

}  // namespace
}  // namespace bitnet::cuda
