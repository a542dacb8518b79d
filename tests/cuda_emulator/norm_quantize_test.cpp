// SPDX-License-Identifier: MIT
// Norms and quantisation against the same order of operations written as plain loops: equal bits in
// every execution.
#include "cuda/norm_quantize.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
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
using Floats = std::vector<float>;

constexpr float kEps = 1e-5f;

struct Result {
  std::vector<std::int8_t> codes;
  std::vector<std::uint32_t> y, act_scale, stats;  // bits: comparable where they are NaN
  bool operator==(const Result&) const = default;
};

std::vector<std::uint32_t> bits_of(const Floats& x) {
  std::vector<std::uint32_t> bits;
  for (const float v : x) bits.push_back(std::bit_cast<std::uint32_t>(v));
  return bits;
}

Result expected_result(RowNormKind kind, const Floats& x, const Floats& gain, int width) {
  Result r;
  const float count = static_cast<float>(width);
  for (std::size_t row = 0; row < x.size(); row += static_cast<std::size_t>(width)) {
    const float* const in = &x[row];
    Floats z(in, in + width);
    if (kind != RowNormKind::none) {
      const auto add = [&](float sum, std::size_t i) { return sum + in[i]; };
      const float mean = kind == RowNormKind::layer ? test::sum_of_row(width, add) / count : 0.0f;
      const auto add_square = [&](float sum, std::size_t i) {
        return std::fma(in[i] - mean, in[i] - mean, sum);
      };
      const float inv_std = 1.0f / std::sqrt(test::sum_of_row(width, add_square) / count + kEps);
      for (std::size_t i = 0; i < z.size(); ++i) {
        z[i] = (z[i] - mean) * inv_std * (gain.empty() ? 1.0f : gain[i]);
      }
      r.stats.push_back(std::bit_cast<std::uint32_t>(mean));
      r.stats.push_back(std::bit_cast<std::uint32_t>(inv_std));
    }
    float absmax = 1e-5f;
    bool finite = true;
    for (const float v : z) {
      finite = finite && std::isfinite(v);
      if (!(std::abs(v) <= absmax)) absmax = std::abs(v);
      r.y.push_back(std::bit_cast<std::uint32_t>(v));
    }
    for (const float v : z) {
      r.codes.push_back(finite ? static_cast<std::int8_t>(std::nearbyint(v * (127.0f / absmax)))
                               : std::int8_t{0});
    }
    r.act_scale.push_back(std::bit_cast<std::uint32_t>(absmax / 127.0f));
  }
  return r;
}

// y and the codes are made by a launch each.
template <typename Y = float, typename Rows>
Result run_rows(Rows input, RowNormKind kind, const Floats& gain, int rows, int width) {
  const test::Stream stream;
  const auto count = static_cast<std::size_t>(rows * width);
  DeviceArray<float> gains(gain.empty() ? Floats(1) : gain);
  DeviceArray<Y> y(count);
  DeviceArray<std::int8_t> codes(count);
  DeviceArray<float> act_scale(static_cast<std::size_t>(rows)),
      stats(static_cast<std::size_t>(2 * rows));
  const bool norm = kind != RowNormKind::none;
  NormQuantize<Rows> op{input,
                        {kind, gain.empty() ? nullptr : gains.data(), kEps},
                        norm ? stats.data() : nullptr,
                        nullptr,
                        codes.data(),
                        act_scale.data(),
                        rows,
                        width};
  REQUIRE(cuda_error(norm_quantize(op, stream)) == "");
  op.y = y.data();
  REQUIRE(cuda_error(norm_quantize(op, stream)) == "");
  return {codes.to_host(), bits_of(test::to_floats(y.to_host())), bits_of(act_scale.to_host()),
          norm ? bits_of(stats.to_host()) : std::vector<std::uint32_t>()};
}

template <typename Input, typename Y = float>
Result run(RowNormKind kind, const std::vector<Input>& x, const Floats& gain, int width) {
  DeviceArray<Input> inputs(x);
  return run_rows<Y>(PlainRows{inputs.data()}, kind, gain, static_cast<int>(x.size()) / width,
                     width);
}

TEST_CASE("The norm and the quantisation of a row have the bits of the plain loops") {
  // One element; no whole quad; around what a warp holds (256), 512 threads with 2 and 4 quads each,
  // and 1024 with 4, and what is read again for each pass.
  const int width =
      GENERATE(1, 3, 4, 70, 256, 260, 1024, 4096, 4099, 4100, 8192, 8196, 16384, 16388);
  const auto kind = GENERATE(RowNormKind::none, RowNormKind::rms, RowNormKind::layer);
  CAPTURE(width, static_cast<int>(kind));
  const int rows = width <= 256 ? 6 : 2;  // narrow rows share blocks
  const Floats x = random_floats(rows * width, 1, 0.5f);
  const Floats gain = kind == RowNormKind::rms ? random_floats(width, 2) : Floats();
  const Result expected = expected_result(kind, x, gain, width);
  test::in_each_execution([&] { CHECK(run(kind, x, gain, width) == expected); });
}

TEST_CASE("The norm reads bf16 exactly, and rounds once where its result is bf16") {
  const int width = GENERATE(263, 264, 4100, 16388);
  const auto x = test::to_bf16(random_floats(2 * width, 3));
  const Floats widened = test::to_floats(x), gain = random_floats(width, 4);
  const Result expected = expected_result(RowNormKind::layer, widened, gain, width);
  Result narrow = expected;
  for (std::uint32_t& y : narrow.y) {
    y = bits_of(test::rounded_to_bf16({std::bit_cast<float>(y)}))[0];
  }
  test::in_each_execution([&] {
    CHECK(run(RowNormKind::layer, x, gain, width) == expected);
    CHECK(run<__nv_bfloat16, __nv_bfloat16>(RowNormKind::layer, x, gain, width) == narrow);
    CHECK(run<float, __nv_bfloat16>(RowNormKind::layer, widened, gain, width) == narrow);
  });
}

TEST_CASE("The norm of a row has the same bits when the row is the only one") {
  const int width = GENERATE(64, 260, 4100, 8192, 16388);
  const auto kind = GENERATE(RowNormKind::none, RowNormKind::rms, RowNormKind::layer);
  CAPTURE(width);
  const Floats x = random_floats(width, 9, 0.5f), gain = random_floats(width, 10);
  const Result expected = expected_result(kind, x, gain, width);
  test::in_each_execution([&] {
    DeviceArray<float> inputs(x);
    CHECK(run_rows(PlainRows{inputs.data()}, kind, gain, 1, width) == expected);
  });
}

TEST_CASE("The norm of bf16 rows that are aligned to single elements has the same bits") {
  const int width = 520;
  const auto x = test::to_bf16(random_floats(1 + 2 * width, 12));
  const Floats rows = test::to_floats(std::vector(x.begin() + 1, x.end()));
  const Result expected = expected_result(RowNormKind::rms, rows, {}, width);
  test::in_each_execution([&] {
    DeviceArray<__nv_bfloat16> inputs(x);
    CHECK(run_rows(PlainRows{inputs.data() + 1}, RowNormKind::rms, {}, 2, width) == expected);
  });
}

TEST_CASE("The norm of rows that are aligned to single elements has the same bits") {
  const int width = 520;
  const Floats x = random_floats(1 + 2 * width, 5);
  const Floats rows(x.begin() + 1, x.end());
  const Result expected = expected_result(RowNormKind::rms, rows, {}, width);
  test::in_each_execution([&] {
    DeviceArray<float> inputs(x);
    CHECK(run_rows(PlainRows{inputs.data() + 1}, RowNormKind::rms, {}, 2, width) == expected);
  });
}

TEST_CASE("The norm of a gated activation has the bits of both one after the other") {
  const auto activation = GENERATE(RowActivation::silu, RowActivation::relu2, RowActivation::gelu);
  const auto kind = GENERATE(RowNormKind::none, RowNormKind::rms, RowNormKind::layer);
  const int width = GENERATE(45, 520, 4104, 8200);
  const bool with_up = GENERATE(true, false);
  if (width > 520 && activation != RowActivation::relu2) return;  // they take long
  CAPTURE(static_cast<int>(activation), static_cast<int>(kind), width, with_up);
  const Floats gate = random_floats(2 * width, 6), up = random_floats(2 * width, 7),
               gain = random_floats(width, 8);
  test::in_each_execution([&] {
    DeviceArray<float> gates(gate), ups(up), h(gate.size());
    const GatedRows rows{gates.data(), with_up ? ups.data() : nullptr, activation};
    const test::Stream stream;
    REQUIRE(cuda_error(gated_activation({rows, h.data(), static_cast<std::int64_t>(gate.size())},
                                        stream)) == "");
    const Result expected = run(kind, h.to_host(), gain, width);
    CHECK(run_rows(rows, kind, gain, 2, width) == expected);
  });
}

TEST_CASE("The norm of a gated activation of bf16 is that of its floats") {
  const auto activation = GENERATE(RowActivation::silu, RowActivation::relu2, RowActivation::gelu);
  const int width = GENERATE(45, 520, 4104, 16388);
  const bool with_up = GENERATE(true, false);
  if (width > 520 && activation != RowActivation::relu2) return;  // they take long
  CAPTURE(static_cast<int>(activation), width, with_up);
  const auto gate = test::to_bf16(random_floats(2 * width, 13)),
             up = test::to_bf16(random_floats(2 * width, 14));
  const Floats gain = random_floats(width, 15);
  test::in_each_execution([&] {
    DeviceArray<__nv_bfloat16> gates(gate), ups(up);
    DeviceArray<float> wide_gates(test::to_floats(gate)), wide_ups(test::to_floats(up));
    const GatedRows rows{gates.data(), with_up ? ups.data() : nullptr, activation},
        wide{wide_gates.data(), with_up ? wide_ups.data() : nullptr, activation};
    CHECK(run_rows(rows, RowNormKind::rms, gain, 2, width) ==
          run_rows(wide, RowNormKind::rms, gain, 2, width));
  });
}

TEST_CASE("The norm of a row may take its place") {
  const int width = GENERATE(64, 67);
  const Floats x = random_floats(5 * width, 9);
  const Result expected = expected_result(RowNormKind::layer, x, {}, width);
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> rows(x), stats(10);
    REQUIRE(cuda_error(norm_quantize(NormQuantize<PlainRows>{{rows.data()},
                                                             {RowNormKind::layer, nullptr, kEps},
                                                             stats.data(),
                                                             rows.data(),
                                                             nullptr,
                                                             nullptr,
                                                             5,
                                                             width},
                                     stream)) == "");
    CHECK(bits_of(rows.to_host()) == expected.y);
  });
}

TEST_CASE("The quantisation of a row of zeros has the smallest scale") {
  const Floats x(16, 0.0f);
  const Result r = run(RowNormKind::rms, x, {}, 16);
  CHECK(r.codes == std::vector<std::int8_t>(16, 0));
  CHECK(std::bit_cast<float>(r.act_scale[0]) == 1e-5f / 127.0f);
}

TEST_CASE("The quantisation rounds half to even and the largest magnitude to 127") {
  const Result r =
      run(RowNormKind::none, Floats{-127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 3, 127}, {}, 8);
  CHECK(r.codes == std::vector<std::int8_t>{-127, 0, 2, 2, 0, -2, 3, 127});
  CHECK(std::bit_cast<float>(r.act_scale[0]) == 1.0f);
}

TEST_CASE("The quantisation shows what is not finite in the scale and keeps other rows") {
  const float odd =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
               -std::numeric_limits<float>::infinity());
  const auto kind = GENERATE(RowNormKind::none, RowNormKind::rms, RowNormKind::layer);
  const int width = GENERATE(40, 41);
  Floats x = random_floats(2 * width, 10);
  const Result clean = run(kind, x, {}, width);
  x[7] = odd;
  const Result r = run(kind, x, {}, width);
  CHECK(!std::isfinite(std::bit_cast<float>(r.act_scale[0])));
  const auto first_row = r.codes.begin() + width;
  CHECK(std::vector(r.codes.begin(), first_row) == std::vector<std::int8_t>(std::size_t(width), 0));
  CHECK(r.act_scale[1] == clean.act_scale[1]);
  CHECK(std::vector(first_row, r.codes.end()) ==
        std::vector(clean.codes.begin() + width, clean.codes.end()));
}

TEST_CASE("The dequantisation multiplies each code by its row's scale") {
  const int width = GENERATE(1, 64, 70, 2600);
  std::vector<std::int8_t> codes;
  for (int i = 0; i < 5 * width; ++i) codes.push_back(static_cast<std::int8_t>(i * 37 % 255 - 127));
  codes[0] = -128;
  const Floats scales = random_floats(5, 11);
  Floats expected;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    expected.push_back(scales[i / static_cast<std::size_t>(width)] * static_cast<float>(codes[i]));
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::int8_t> from(codes);
    DeviceArray<float> by(scales), x(codes.size());
    REQUIRE(cuda_error(dequantize({from.data(), by.data(), x.data(), 5, width}, stream)) == "");
    CHECK(x.to_host() == expected);
  });
}

TEST_CASE("The norm refuses a matrix without elements, and gated rows of two types") {
  NormQuantize<PlainRows> op{
      {nullptr}, {RowNormKind::rms, nullptr, kEps}, nullptr, nullptr, nullptr, nullptr, 0, 4};
  CHECK(norm_quantize(op, nullptr) == cudaErrorInvalidValue);
  op.rows = 1, op.width = 0;
  CHECK(norm_quantize(op, nullptr) == cudaErrorInvalidValue);
  CHECK(dequantize({nullptr, nullptr, nullptr, 0, 4}, nullptr) == cudaErrorInvalidValue);
  float gate = 0;
  __nv_bfloat16 up{};
  CHECK(norm_quantize(NormQuantize<GatedRows>{{&gate, &up, RowActivation::silu},
                                              {RowNormKind::none, nullptr, 0},
                                              nullptr,
                                              nullptr,
                                              nullptr,
                                              nullptr,
                                              1,
                                              1},
                      nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
