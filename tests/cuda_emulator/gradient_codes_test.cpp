// SPDX-License-Identifier: MIT
// Gradients rounded by rows and by columns, and transposed codes, against plain loops: equal bits
// in every execution.
#include "cuda/gradient_codes.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <deque>
#include <limits>
#include <random>
#include <vector>

#include "cuda/unpack_codes.h"
#include "tests/cuda_emulator/bf16_values.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;
using Floats = std::vector<float>;
using Codes = std::vector<std::int8_t>;

struct Rounded {
  Codes codes;
  std::vector<std::uint32_t> scale;  // bits: comparable where they are NaN
  bool operator==(const Rounded&) const = default;
};

// All NaNs as one: which of them an operation makes is the processor's own affair.
std::uint32_t bits_of(float x) {
  return std::bit_cast<std::uint32_t>(std::isnan(x) ? std::numeric_limits<float>::quiet_NaN() : x);
}
std::vector<std::uint32_t> bits_of(const Floats& x) {
  std::vector<std::uint32_t> bits;
  for (const float v : x) bits.push_back(bits_of(v));
  return bits;
}

// Appends the codes of values, with zeros up to `padded`, and the scale times another.
void round(const Floats& values, int padded, float times, Rounded& to) {
  float absmax = 0x1p-100f;
  for (const float v : values) {
    if (!(std::abs(v) <= absmax) && !std::isnan(absmax)) absmax = std::abs(v);
  }
  const float inv_scale = std::isfinite(absmax) ? 127.0f / absmax : 0.0f;
  for (int i = 0; i < padded; ++i) {
    const bool there = i < static_cast<int>(values.size()) && inv_scale != 0.0f;
    to.codes.push_back(there ? static_cast<std::int8_t>(
                                   std::nearbyint(values[static_cast<std::size_t>(i)] * inv_scale))
                             : std::int8_t{0});
  }
  to.scale.push_back(bits_of(absmax / 127.0f * times));
}

std::size_t index(int row, int width, int column) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(width) +
         static_cast<std::size_t>(column);
}

// Gradients of products that share their input.
struct Case {
  int rows;
  std::vector<int> columns;
  std::vector<Floats> dy;
  Floats act_scale;

  float weight_scale(std::size_t g) const { return 0.3f + static_cast<float>(g); }
};

Rounded rows_rounded(const Case& c) {
  Rounded r;
  for (int t = 0; t < c.rows; ++t) {
    for (std::size_t g = 0; g < c.dy.size(); ++g) {
      const int columns = c.columns[g];
      Floats row;
      for (int i = 0; i < columns; ++i)
        row.push_back(c.dy[g][index(t, columns, i % 4 * (columns / 4) + i / 4)]);
      round(row, padded_outputs(columns / 4), c.weight_scale(g), r);
    }
  }
  return r;
}

Rounded columns_rounded(const Case& c) {
  Rounded r;
  for (std::size_t g = 0; g < c.dy.size(); ++g) {
    for (int n = 0; n < c.columns[g]; ++n) {
      for (int first = 0; first < c.rows; first += kGradientStretch) {
        Floats values;
        for (int t = first; t < std::min(first + kGradientStretch, c.rows); ++t) {
          values.push_back(c.dy[g][index(t, c.columns[g], n)] *
                           c.act_scale[static_cast<std::size_t>(t)]);
        }
        round(values, std::min(kGradientStretch, padded_tokens(c.rows) - first), 1, r);
      }
    }
  }
  return r;
}

Floats random_floats(int count, unsigned seed, float deviation) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  Floats x(static_cast<std::size_t>(count));
  for (float& v : x) v = normal(random);
  return x;
}

template <typename T>
void check_rounding_of(const Case& c, std::deque<DeviceArray<T>>& dy, cudaStream_t stream) {
  const Rounded by_rows = rows_rounded(c), by_columns = columns_rounded(c);
  DeviceArray<float> scales(c.act_scale);
  DeviceArray<std::int8_t> row_codes(by_rows.codes.size()), column_codes(by_columns.codes.size());
  DeviceArray<float> row_scale(by_rows.scale.size()), column_scale(by_columns.scale.size());
  std::deque<DeviceArray<float>> weight_scale;
  GradientRows rows{};
  for (std::size_t g = 0; g < dy.size(); ++g) {
    rows.gradients.gradient[g] = {dy[g].data(), c.columns[g]};
    weight_scale.emplace_back(Floats{c.weight_scale(g)});
    rows.weight_scale[g] = weight_scale.back().data();
  }
  rows.gradients.count = static_cast<int>(dy.size());
  rows.gradients.rows = c.rows;
  rows.codes = row_codes.data();
  rows.scale = row_scale.data();
  const GradientColumns columns{rows.gradients, scales.data(), column_codes.data(),
                                column_scale.data()};
  REQUIRE(cuda_error(quantize_gradient_rows(rows, stream)) == "");
  REQUIRE(cuda_error(quantize_gradient_columns(columns, stream)) == "");
  CHECK(Rounded{row_codes.to_host(), bits_of(row_scale.to_host())} == by_rows);
  CHECK(Rounded{column_codes.to_host(), bits_of(column_scale.to_host())} == by_columns);
}

// Of f32, and of bf16.
void check_rounding(const Case& c) {
  Case narrowed = c;
  for (Floats& dy : narrowed.dy) dy = test::rounded_to_bf16(dy);
  test::in_each_execution([&] {
    const test::Stream stream;
    std::deque<DeviceArray<float>> wide;
    std::deque<DeviceArray<__nv_bfloat16>> narrow;
    for (const Floats& dy : c.dy) {
      wide.emplace_back(dy);
      narrow.emplace_back(test::to_bf16(dy));
    }
    check_rounding_of(c, wide, stream);
    check_rounding_of(narrowed, narrow, stream);
  });
}

Case random_case(int rows, const std::vector<int>& columns) {
  Case c{rows, columns, {}, random_floats(rows, 2, 0.01f)};
  unsigned seed = 10;
  for (const int n : columns) c.dy.push_back(random_floats(rows * n, seed++, 1e-4f));
  return c;
}

struct Shape {
  int rows, columns;
};

TEST_CASE("The rounded gradients have the bits of the plain loops") {
  // Around a stretch of 256 tokens, 32 columns of a block, 128 packed bytes of a step.
  const Shape shape = GENERATE(Shape{1, 4}, Shape{17, 36}, Shape{256, 32}, Shape{257, 12},
                               Shape{530, 68}, Shape{3, 1052});
  CAPTURE(shape.rows, shape.columns);
  check_rounding(random_case(shape.rows, {shape.columns}));
}

TEST_CASE("The rounded gradients of several products are joined") {
  check_rounding(random_case(21, {36, 132, 4}));
  check_rounding(random_case(270, {8, 64}));
}

TEST_CASE("The rounded gradients show what is not finite in the scale alone, and zeros as zeros") {
  const int rows = 20, columns = 8;
  Floats dy = random_floats(rows * columns, 3, 1e-30f);
  for (int n = 0; n < columns; ++n) dy[index(4, columns, n)] = 0;
  dy[index(5, columns, 1)] = std::numeric_limits<float>::quiet_NaN();
  dy[index(6, columns, 2)] = -std::numeric_limits<float>::infinity();
  check_rounding({rows, {columns}, {dy}, random_floats(rows, 4, 0.01f)});
}

TEST_CASE("The transposed codes are the columns, with zeros after the last token") {
  // Around the tiles of 128 by 128, and a thread's 16 tokens.
  const Shape shape =
      GENERATE(Shape{1, 16}, Shape{16, 64}, Shape{128, 128}, Shape{131, 144}, Shape{300, 32});
  const auto [rows, depth] = shape;
  CAPTURE(rows, depth);
  std::mt19937 random(6);
  Codes codes(static_cast<std::size_t>(rows * depth)), expected;
  for (auto& v : codes) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
  for (int k = 0; k < depth; ++k) {
    for (int t = 0; t < padded_tokens(rows); ++t) {
      expected.push_back(t < rows ? codes[index(t, depth, k)] : std::int8_t{0});
    }
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::int8_t> from(codes), to(expected.size());
    REQUIRE(cuda_error(transpose_codes(from.data(), rows, depth, to.data(), stream)) == "");
    CHECK(to.to_host() == expected);
  });
}

TEST_CASE("The operands of gradients are refused in shapes without a kernel") {
  GradientRows rows{};
  rows.gradients.count = rows.gradients.rows = 1;
  rows.gradients.gradient[0].columns = 6;
  CHECK(quantize_gradient_rows(rows, nullptr) == cudaErrorInvalidValue);
  rows.gradients.gradient[0].columns = 4, rows.gradients.count = kMostGradients + 1;
  CHECK(quantize_gradient_rows(rows, nullptr) == cudaErrorInvalidValue);
  GradientColumns columns{};
  columns.gradients.count = 1;
  columns.gradients.gradient[0].columns = 4;
  CHECK(quantize_gradient_columns(columns, nullptr) == cudaErrorInvalidValue);
  CHECK(transpose_codes(nullptr, 1, 24, nullptr, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
