// SPDX-License-Identifier: MIT
// Gated activations and their gradients: relu2 has the bits of the formula, the others are within a
// few roundings of it in double.
#include "cuda/gated_activation.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <vector>

#include "tests/cuda_emulator/bf16_values.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/cuda_emulator/row_order.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;
using test::random_floats;
using test::rounded_to_bf16;
using Floats = std::vector<float>;

struct Result {
  Floats h, dgate, dup;
  bool operator==(const Result&) const = default;
};

// dgate takes the place of dh and dup that of up if in_place. `offset` moves all tensors away from
// their alignment. All are stored as T.
template <typename T = float>
Result run(RowActivation activation, const Floats& gate, const Floats& up, const Floats& dh,
           bool in_place, std::size_t offset = 0) {
  const test::Stream stream;
  const auto moved = [&](const Floats& values) {
    Floats x(offset + values.size());
    std::copy(values.begin(), values.end(), x.begin() + static_cast<std::ptrdiff_t>(offset));
    return test::stored<T>(x);
  };
  const bool with_up = !up.empty();
  DeviceArray<T> gates(moved(gate)), ups(moved(with_up ? up : gate)), dhs(moved(dh)),
      h(gate.size() + offset), dgate(gate.size() + offset), dup(gate.size() + offset);
  const auto at = [&](DeviceArray<T>& x) { return x.data() + offset; };
  const auto count = static_cast<std::int64_t>(gate.size());
  const GatedRows rows{at(gates), with_up ? at(ups) : nullptr, activation};
  REQUIRE(cuda_error(gated_activation({rows, at(h), count}, stream)) == "");
  DeviceArray<T>&to_gate = in_place ? dhs : dgate, &to_up = in_place ? ups : dup;
  REQUIRE(cuda_error(gated_activation_backward(
              {rows, at(dhs), at(to_gate), with_up ? at(to_up) : nullptr, count}, stream)) == "");
  const auto taken = [&](const DeviceArray<T>& x) {
    const Floats all = test::to_floats(x.to_host());
    return Floats(all.begin() + static_cast<std::ptrdiff_t>(offset), all.end());
  };
  return {taken(h), taken(to_gate), with_up ? taken(to_up) : Floats()};
}

Result expected_relu2(const Floats& gate, const Floats& up, const Floats& dh) {
  Result r;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const float positive = gate[i] < 0 ? 0.0f : gate[i], u = up.empty() ? 1.0f : up[i];
    r.h.push_back(positive * positive * u);
    r.dgate.push_back(dh[i] * u * (positive + positive));
    if (!up.empty()) r.dup.push_back(dh[i] * (positive * positive));
  }
  return r;
}

TEST_CASE("The gated relu2 and its gradients have the bits of the formula") {
  const int count = GENERATE(1, 4, 5, 1023, 1024, 1025);  // around the 1024 of a block
  const bool with_up = GENERATE(true, false);
  CAPTURE(count, with_up);
  const Floats gate = random_floats(count, 1), dh = random_floats(count, 3),
               up = with_up ? random_floats(count, 2) : Floats();
  const Result expected = expected_relu2(gate, up, dh);
  test::in_each_execution([&] {
    CHECK(run(RowActivation::relu2, gate, up, dh, false) == expected);
    CHECK(run(RowActivation::relu2, gate, up, dh, true) == expected);
    CHECK(run(RowActivation::relu2, gate, up, dh, false, 1) == expected);
  });
}

TEST_CASE("The silu and the gelu are within a few roundings of double everywhere") {
  constexpr double kRounding = 0x1p-24;
  const auto activation = GENERATE(RowActivation::silu, RowActivation::gelu);
  Floats gate;
  for (double v = -90; v <= 90; v += 0.0371) gate.push_back(static_cast<float>(v));
  const Result r = run(activation, gate, {}, Floats(gate.size(), 1.0f), false);
  double worst = 0, worst_derivative = 0;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double x = gate[i];
    double factor = 0, derivative = 0;
    if (activation == RowActivation::silu) {
      factor = 1 / (1 + std::exp(-x));
      derivative = factor * (1 + x * (1 - factor));
    } else {
      factor = 0.5 * std::erfc(-x / std::numbers::sqrt2);
      derivative = factor + x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
    }
    // The factor of x is at most 1 and has the roundings of exp or erf (2 each), of their argument
    // and of the sum, and of the quotient; the product has one more.
    const double error = std::abs(static_cast<double>(r.h[i]) - x * factor);
    worst = std::fmax(worst, std::isnan(error) ? INFINITY : error / (kRounding * std::abs(x)));
    // The slope is the factor plus x times the factor's own, in which 1 - σ has the error of σ, as
    // has x φ(x) for gelu.
    const double slope_error = std::abs(static_cast<double>(r.dgate[i]) - derivative);
    worst_derivative =
        std::fmax(worst_derivative, std::isnan(slope_error)
                                        ? INFINITY
                                        : slope_error / (kRounding * (1 + std::abs(x) * factor)));
  }
  CHECK(worst <= 5);
  CHECK(worst_derivative <= 8);
}

TEST_CASE("The gradients of each activation may take the place of dy and of up") {
  const auto activation = GENERATE(RowActivation::silu, RowActivation::relu2, RowActivation::gelu);
  const Floats gate = random_floats(70, 4), up = random_floats(70, 5), dh = random_floats(70, 6);
  CHECK(run(activation, gate, up, dh, true) == run(activation, gate, up, dh, false));
}

TEST_CASE("The gated activation of bf16 and its gradients are those of its floats, rounded once") {
  const auto activation = GENERATE(RowActivation::silu, RowActivation::relu2, RowActivation::gelu);
  const int count = GENERATE(1, 5, 1024, 1027);
  const bool with_up = GENERATE(true, false);
  CAPTURE(static_cast<int>(activation), count, with_up);
  const Floats gate = rounded_to_bf16(random_floats(count, 7)),
               dh = rounded_to_bf16(random_floats(count, 8)),
               up = with_up ? rounded_to_bf16(random_floats(count, 9)) : Floats();
  Result expected = run(activation, gate, up, dh, false);
  expected = {rounded_to_bf16(expected.h), rounded_to_bf16(expected.dgate),
              rounded_to_bf16(expected.dup)};
  test::in_each_execution([&] {
    CHECK(run<__nv_bfloat16>(activation, gate, up, dh, false) == expected);
    CHECK(run<__nv_bfloat16>(activation, gate, up, dh, true) == expected);
    CHECK(run<__nv_bfloat16>(activation, gate, up, dh, false, 1) == expected);
  });
}

TEST_CASE("The NaN of a gate comes through every activation") {
  const auto activation = GENERATE(RowActivation::silu, RowActivation::relu2, RowActivation::gelu);
  Floats gate(8, 0.5f);
  gate[5] = std::numeric_limits<float>::quiet_NaN();
  const Result r = run(activation, gate, {}, Floats(8, 1.0f), false);
  for (std::size_t i = 0; i < gate.size(); ++i) {
    CHECK(std::isnan(r.h[i]) == (i == 5));
    CHECK(std::isnan(r.dgate[i]) == (i == 5));
  }
}

TEST_CASE("The gated activation refuses to have no elements, or two types") {
  const GatedRows rows{nullptr, nullptr, RowActivation::silu};
  CHECK(gated_activation({rows, nullptr, 0}, nullptr) == cudaErrorInvalidValue);
  CHECK(gated_activation_backward({rows, nullptr, nullptr, nullptr, 0}, nullptr) ==
        cudaErrorInvalidValue);
  DeviceArray<float> floats(4);
  DeviceArray<__nv_bfloat16> halves(4);
  const GatedRows wide{floats.data(), nullptr, RowActivation::silu};
  CHECK(gated_activation({wide, halves.data(), 4}, nullptr) == cudaErrorInvalidValue);
  CHECK(gated_activation_backward({wide, floats.data(), halves.data(), nullptr, 4}, nullptr) ==
        cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
