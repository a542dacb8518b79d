// SPDX-License-Identifier: MIT
// The gradients of norms and of gated activations against the same order of operations written as
// plain loops: equal bits in every execution.
#include "cuda/norm_backward.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cuda/gated_activation.h"
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
using Half = __nv_bfloat16;

struct Case {
  RowNormKind kind;
  int rows, width;
  std::size_t elements() const { return static_cast<std::size_t>(rows * width); }
};

struct Gradients {
  Floats dx, dup, dgain;
  bool operator==(const Gradients&) const = default;
};

// Of a mean near the middle of the data, for what is computed here is the same whatever they are.
Floats statistics(int rows) {
  Floats stats;
  for (int row = 0; row < rows; ++row) {
    stats.push_back(0.01f * static_cast<float>(row % 5));
    stats.push_back(0.5f + 0.125f * static_cast<float>(row % 3));
  }
  return stats;
}

// What comes out for one row; adds to the stretch's part of dgain.
void expected_row(const Case& c, const float* x, const float* stats, const float* dy,
                  const Floats& gain, float* dx, Floats& part) {
  const float count = static_cast<float>(c.width);
  const auto h_hat = [&](std::size_t i) { return (x[i] - stats[0]) * stats[1]; };
  const auto g = [&](std::size_t i) { return dy[i] * (gain.empty() ? 1.0f : gain[i]); };
  const auto add = [&](float sum, std::size_t i) { return sum + g(i); };
  const auto add_product = [&](float sum, std::size_t i) { return std::fma(g(i), h_hat(i), sum); };
  const float mean_g = c.kind == RowNormKind::layer ? test::sum_of_row(c.width, add) / count : 0.0f;
  const float mean_product = test::sum_of_row(c.width, add_product) / count;
  for (std::size_t i = 0; i < static_cast<std::size_t>(c.width); ++i) {
    dx[i] = stats[1] * (g(i) - h_hat(i) * mean_product - mean_g);
    part[i] = std::fma(dy[i], h_hat(i), part[i]);
  }
}

// dgain: stretches of rows, at most 512 and of at least 4 rows; up to 32 threads add up every
// 32nd stretch each, and then follow one another.
Gradients expected_gradients(const Case& c, const Floats& x, const Floats& dy, const Floats& gain,
                             const Floats& dgain_before) {
  Gradients r{Floats(x.size()), {}, dgain_before};
  const Floats stats = statistics(c.rows);
  const int stretch = std::max(4, (c.rows + 511) / 512);
  const auto width = static_cast<std::size_t>(c.width);
  std::vector<Floats> slices(static_cast<std::size_t>(std::min(32, gain_parts(c.rows))),
                             Floats(width, 0.0f));
  for (int first = 0, index = 0; first < c.rows; first += stretch, ++index) {
    Floats part(width, 0.0f);
    for (int row = first; row < std::min(first + stretch, c.rows); ++row) {
      const std::size_t at = static_cast<std::size_t>(row) * width;
      expected_row(c, &x[at], &stats[static_cast<std::size_t>(2 * row)], &dy[at], gain, &r.dx[at],
                   part);
    }
    Floats& slice = slices[static_cast<std::size_t>(index) % slices.size()];
    for (std::size_t i = 0; i < width; ++i) slice[i] += part[i];
  }
  for (std::size_t i = 0; i < width; ++i) {
    float sum = slices[0][i];
    for (std::size_t s = 1; s < slices.size(); ++s) sum += slices[s][i];
    r.dgain[i] += sum;
  }
  return r;
}

// `dx` holds what is there before. Without dgain_before there is no dgain. dy is stored as Dy, dx and
// dup as Dx.
template <typename Dy = float, typename Dx = float, typename Rows>
Gradients run(const Case& c, Rows input, const Floats& dy, const Floats& gain, Floats dx,
              bool accumulate, bool with_dup, const Floats& dgain_before) {
  const test::Stream stream;
  const bool with_dgain = !dgain_before.empty();
  DeviceArray<Dy> dys(test::stored<Dy>(dy));
  DeviceArray<Dx> dxs(test::stored<Dx>(dx)), dups(dy.size());
  DeviceArray<float> stats(statistics(c.rows)), gains(gain.empty() ? Floats(1) : gain),
      dgain(with_dgain ? dgain_before : Floats(1)),
      parts(static_cast<std::size_t>(gain_parts(c.rows) * c.width));
  const NormBackward<Rows> op{input,
                              {c.kind, gain.empty() ? nullptr : gains.data(), 0.0f},
                              stats.data(),
                              dys.data(),
                              dxs.data(),
                              accumulate,
                              with_dup ? dups.data() : nullptr,
                              with_dgain ? dgain.data() : nullptr,
                              with_dgain ? parts.data() : nullptr,
                              c.rows,
                              c.width};
  REQUIRE(cuda_error(norm_backward(op, stream)) == "");
  return {test::to_floats(dxs.to_host()), with_dup ? test::to_floats(dups.to_host()) : Floats(),
          with_dgain ? dgain.to_host() : Floats()};
}

TEST_CASE("The norm's gradients have the bits of the plain loops") {
  const auto kind = GENERATE(RowNormKind::rms, RowNormKind::layer);
  // Rows: one, around a stretch of 4 and around 32 stretches. Widths as in the forward direction.
  const auto [rows, width] = GENERATE(table<int, int>({{1, 1},
                                                       {4, 70},
                                                       {5, 64},
                                                       {17, 256},
                                                       {9, 260},
                                                       {134, 36},
                                                       {3, 4096},
                                                       {5, 4100},
                                                       {2, 8192},
                                                       {5, 8196}}));
  const Case c{kind, rows, width};
  CAPTURE(static_cast<int>(kind), rows, width);
  const Floats x = random_floats(rows * width, 1), dy = random_floats(rows * width, 2),
               before = random_floats(width, 3);
  const Floats gain = rows % 2 == 1 ? random_floats(width, 4) : Floats();
  const Gradients expected = expected_gradients(c, x, dy, gain, before);
  test::in_each_execution([&] {
    DeviceArray<float> inputs(x);
    const PlainRows input{inputs.data()};
    CHECK(run(c, input, dy, gain, Floats(x.size()), false, false, before) == expected);
    const Gradients alone = run(c, input, dy, gain, Floats(x.size()), false, false, {});
    CHECK(alone.dx == expected.dx);
  });
}

TEST_CASE("The norm's gradient of many rows is summed by longer stretches") {
  const Case c{RowNormKind::rms, 2049, 12};  // 512 stretches of 5, the last ones empty
  const Floats x = random_floats(c.rows * c.width, 5), dy = random_floats(c.rows * c.width, 6),
               before = random_floats(c.width, 7);
  CHECK(gain_parts(2048) == 512);
  CHECK(gain_parts(2049) == 410);
  const Gradients expected = expected_gradients(c, x, dy, {}, before);
  DeviceArray<float> inputs(x);
  CHECK(run(c, PlainRows{inputs.data()}, dy, {}, Floats(x.size()), false, false, before) ==
        expected);
}

TEST_CASE("The norm's gradient adds to what is there where that is wanted") {
  const Case c{RowNormKind::layer, 6, GENERATE(64, 67, 8200)};
  const Floats x = random_floats(c.rows * c.width, 8), dy = random_floats(c.rows * c.width, 9),
               before = random_floats(c.rows * c.width, 10), dgain = random_floats(c.width, 11);
  Gradients expected = expected_gradients(c, x, dy, {}, dgain);
  for (std::size_t i = 0; i < before.size(); ++i) expected.dx[i] = before[i] + expected.dx[i];
  test::in_each_execution([&] {
    DeviceArray<float> inputs(x);
    CHECK(run(c, PlainRows{inputs.data()}, dy, {}, before, true, false, dgain) == expected);
  });
}

TEST_CASE("The norm's gradients read bf16 exactly, and are rounded once where they are bf16") {
  const Case c{RowNormKind::layer, 6, GENERATE(64, 67, 4100, 8200)};
  const Floats x = rounded_to_bf16(random_floats(c.rows * c.width, 19)),
               dy = rounded_to_bf16(random_floats(c.rows * c.width, 20)),
               before = random_floats(c.rows * c.width, 21), gain = random_floats(c.width, 22),
               dgain = random_floats(c.width, 23), zeros(x.size());
  const Gradients expected = expected_gradients(c, x, dy, gain, dgain);
  Gradients added = expected, narrow = expected;
  for (std::size_t i = 0; i < before.size(); ++i) added.dx[i] = before[i] + expected.dx[i];
  narrow.dx = rounded_to_bf16(expected.dx);
  test::in_each_execution([&] {
    DeviceArray<float> floats(x);
    DeviceArray<Half> halves(test::to_bf16(x));
    const PlainRows wide{floats.data()}, input{halves.data()};
    CHECK(run<Half, float>(c, wide, dy, gain, before, true, false, dgain) == added);
    CHECK(run<Half, Half>(c, input, dy, gain, zeros, false, false, dgain) == narrow);
    CHECK(run<Half, float>(c, input, dy, gain, zeros, false, false, dgain) == expected);
    CHECK(run<float, float>(c, input, dy, gain, before, true, false, dgain) == added);
    CHECK(run<float, Half>(c, wide, dy, gain, zeros, false, false, dgain) == narrow);
  });
}

TEST_CASE(
    "The gradients of a gated activation of bf16 with a norm are those of its floats, rounded") {
  const auto activation = GENERATE(RowActivation::silu, RowActivation::relu2, RowActivation::gelu);
  const bool with_up = GENERATE(true, false);
  const int width = GENERATE(45, 520, 4104, 8200);
  if (width > 520 && activation != RowActivation::relu2) return;  // they take long
  const Case c{RowNormKind::layer, 5, width};
  CAPTURE(static_cast<int>(activation), with_up, c.width);
  const Floats gate = rounded_to_bf16(random_floats(c.rows * c.width, 24)),
               up = rounded_to_bf16(random_floats(c.rows * c.width, 25)),
               dy = rounded_to_bf16(random_floats(c.rows * c.width, 26)),
               gain = random_floats(c.width, 27), dgain = random_floats(c.width, 28),
               zeros(gate.size());
  test::in_each_execution([&] {
    DeviceArray<float> gates(gate), ups(up);
    DeviceArray<Half> half_gates(test::to_bf16(gate)), half_ups(test::to_bf16(up));
    const GatedRows wide{gates.data(), with_up ? ups.data() : nullptr, activation},
        rows{half_gates.data(), with_up ? half_ups.data() : nullptr, activation};
    Gradients expected = run(c, wide, dy, gain, zeros, false, with_up, dgain);
    expected.dx = rounded_to_bf16(expected.dx);
    expected.dup = rounded_to_bf16(expected.dup);
    CHECK(run<Half, Half>(c, rows, dy, gain, zeros, false, with_up, dgain) == expected);
  });
}

TEST_CASE("The norm's gradient may take the place of dy") {
  const Case c{RowNormKind::layer, 6, GENERATE(64, 67, 4100, 8200)};
  const Floats x = random_floats(c.rows * c.width, 12), dy = random_floats(c.rows * c.width, 13);
  const Floats expected = expected_gradients(c, x, dy, {}, Floats(std::size_t(c.width))).dx;
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> inputs(x), stats(statistics(c.rows)), dys(dy);
    REQUIRE(cuda_error(norm_backward(NormBackward<PlainRows>{{inputs.data()},
                                                             {c.kind, nullptr, 0.0f},
                                                             stats.data(),
                                                             dys.data(),
                                                             dys.data(),
                                                             false,
                                                             nullptr,
                                                             nullptr,
                                                             nullptr,
                                                             c.rows,
                                                             c.width},
                                     stream)) == "");
    CHECK(dys.to_host() == expected);
  });
}

TEST_CASE("The gradients of a gated activation with a norm are those of both one after the other") {
  const auto activation = GENERATE(RowActivation::silu, RowActivation::relu2, RowActivation::gelu);
  const bool with_up = GENERATE(true, false);
  const int width = GENERATE(45, 520, 4104, 8200);
  if (width > 520 && activation != RowActivation::relu2) return;  // they take long
  const Case c{with_up ? RowNormKind::rms : RowNormKind::layer, 5, width};
  CAPTURE(static_cast<int>(activation), with_up, c.width);
  const Floats gate = random_floats(c.rows * c.width, 14), up = random_floats(c.rows * c.width, 15),
               dy = random_floats(c.rows * c.width, 16), gain = random_floats(c.width, 17),
               dgain = random_floats(c.width, 18);
  const auto count = static_cast<std::int64_t>(gate.size());
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> gates(gate), ups(up), h(gate.size()), dgate(gate.size()), dup(gate.size());
    const GatedRows rows{gates.data(), with_up ? ups.data() : nullptr, activation};
    REQUIRE(cuda_error(gated_activation({rows, h.data(), count}, stream)) == "");
    REQUIRE(cuda_error(cudaStreamSynchronize(stream)) == "");
    const Gradients by_norm =
        run(c, PlainRows{h.data()}, dy, gain, Floats(gate.size()), false, false, dgain);
    DeviceArray<float> dh(by_norm.dx);
    REQUIRE(cuda_error(gated_activation_backward(
                {rows, dh.data(), dgate.data(), with_up ? dup.data() : nullptr, count}, stream)) ==
            "");
    const Gradients expected{dgate.to_host(), with_up ? dup.to_host() : Floats(), by_norm.dgain};
    CHECK(run(c, rows, dy, gain, Floats(gate.size()), false, with_up, dgain) == expected);
  });
}

TEST_CASE("The norm's gradient refuses a matrix without elements, and rows without a norm") {
  NormBackward<PlainRows> op{{nullptr}, {RowNormKind::rms, nullptr, 0.0f},
                             nullptr,   nullptr,
                             nullptr,   false,
                             nullptr,   nullptr,
                             nullptr,   0,
                             4};
  CHECK(norm_backward(op, nullptr) == cudaErrorInvalidValue);
  op.rows = 1, op.width = 0;
  CHECK(norm_backward(op, nullptr) == cudaErrorInvalidValue);
  op.width = 4, op.norm.kind = RowNormKind::none;
  CHECK(norm_backward(op, nullptr) == cudaErrorInvalidValue);
}

TEST_CASE("The norm's gradient refuses to add to bf16, and gated rows of two types") {
  const test::Stream stream;
  DeviceArray<float> floats(8);
  DeviceArray<Half> halves(8);
  const RowNorm norm{RowNormKind::rms, nullptr, 0.0f};
  NormBackward<PlainRows> op{{halves.data()},
                             norm,
                             floats.data(),
                             halves.data(),
                             halves.data(),
                             true,
                             nullptr,
                             nullptr,
                             nullptr,
                             1,
                             4};
  CHECK(norm_backward(op, stream) == cudaErrorInvalidValue);
  NormBackward<GatedRows> gated{{halves.data(), nullptr, RowActivation::relu2},
                                norm,
                                floats.data(),
                                floats.data(),
                                halves.data(),
                                false,
                                nullptr,
                                nullptr,
                                nullptr,
                                1,
                                4};
  CHECK(norm_backward(gated, stream) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
