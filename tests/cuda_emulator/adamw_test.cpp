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

void step(State& s) {
  const AdamWFactors& f = kFactors;
  for (std::size_t i = 0; i < s.m.size(); ++i) {
    const float g = s.gradient[i] * f.grad_scale;
    s.m[i] = std::fma(f.one_minus_beta1, g - s.m[i], s.m[i]);
    s.v[i] = std::fma(f.one_minus_beta2 * g, g, s.v[i] * f.beta2);
    const float denominator = std::fma(std::sqrt(s.v[i]), f.inv_sqrt_bias2, f.eps);
    s.parameter[i] = std::fma(-f.step_size, s.m[i] / denominator, s.parameter[i] * f.decay);
  }
}

TEST_CASE("The AdamW step has the bits of the plain loop") {
  const std::size_t count = GENERATE(1u, 4u, 1023u, 1024u, 1029u);  // 1024 of a block
  const State start = random_state(count);
  State expected = start;
  step(expected);
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> gradient(start.gradient), parameter(start.parameter), m(start.m), v(start.v);
    const AdamW op{kFactors, gradient.data(), parameter.data(),
                   m.data(), v.data(),        static_cast<std::int64_t>(count)};
    REQUIRE(cuda_error(adamw(op, stream)) == "");
    CHECK(parameter.to_host() == expected.parameter);
    CHECK(m.to_host() == expected.m);
    CHECK(v.to_host() == expected.v);
    CHECK(gradient.to_host() == start.gradient);
  });
}

}  // namespace
}  // namespace bitnet::cuda
