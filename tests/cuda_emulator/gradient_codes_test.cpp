// SPDX-License-Identifier: MIT
// Gradients rounded by rows and by columns, and transposed codes, against plain loops: equal bits
// in every execution.
#include "cuda/gradient_codes.h"

#include <bit>
#include <cmath>
#include <cstdint>
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

std::vector<std::uint32_t> bits_of(const Floats& x) {
  std::vector<std::uint32_t> bits;
  for (const float v : x) bits.push_back(std::bit_cast<std::uint32_t>(v));
  return bits;
}

// Appends the codes of values, with zeros up to `padded`, and the scale.
void round(const Floats& values, int padded, Rounded& to) {
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
  to.scale.push_back(std::bit_cast<std::uint32_t>(absmax / 127.0f));
}

std::size_t index(int row, int width, int column) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(width) +
         static_cast<std::size_t>(column);
}

Rounded rows_rounded(const Floats& dy, int rows, int columns) {
  Rounded r;
  for (int t = 0; t < rows; ++t) {
    Floats row;
    for (int i = 0; i < columns; ++i)
      row.push_back(dy[index(t, columns, i % 4 * (columns / 4) + i / 4)]);
    round(row, padded_outputs(columns / 4), r);
  }
  return r;
}

Rounded columns_rounded(const Floats& dy, const Floats& act_scale, int rows, int columns) {
  Rounded r;
  for (int n = 0; n < columns; ++n) {
    for (int first = 0; first < rows; first += kGradientStretch) {
      Floats values;
      for (int t = first; t < std::min(first + kGradientStretch, rows); ++t) {
        values.push_back(dy[index(t, columns, n)] * act_scale[static_cast<std::size_t>(t)]);
      }
      round(values, std::min(kGradientStretch, padded_tokens(rows) - first), r);
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

void check_rounding_from(ConstReals from, const Floats& dy, const Floats& act_scale, int rows,
                         int columns, cudaStream_t stream) {
  const Rounded by_rows = rows_rounded(dy, rows, columns),
                by_columns = columns_rounded(dy, act_scale, rows, columns);
  DeviceArray<float> scales(act_scale);
  DeviceArray<std::int8_t> row_codes(by_rows.codes.size()), column_codes(by_columns.codes.size());
  DeviceArray<float> row_scale(by_rows.scale.size()), column_scale(by_columns.scale.size());
  REQUIRE(cuda_error(quantize_gradient_rows(from, rows, columns, row_codes.data(), row_scale.data(),
                                            stream)) == "");
  REQUIRE(cuda_error(quantize_gradient_columns(from, scales.data(), rows, columns,
                                               column_codes.data(), column_scale.data(), stream)) ==
          "");
  CHECK(Rounded{row_codes.to_host(), bits_of(row_scale.to_host())} == by_rows);
  CHECK(Rounded{column_codes.to_host(), bits_of(column_scale.to_host())} == by_columns);
}

// Of f32, and of bf16.
void check_rounding(const Floats& dy, const Floats& act_scale, int rows, int columns) {
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> wide(dy);
    DeviceArray<__nv_bfloat16> narrow(test::to_bf16(dy));
    check_rounding_from(wide.data(), dy, act_scale, rows, columns, stream);
    check_rounding_from(narrow.data(), test::rounded_to_bf16(dy), act_scale, rows, columns, stream);
  });
}

struct Shape {
  int rows, columns;
};

TEST_CASE("The rounded gradients have the bits of the plain loops") {
  // Around a stretch of 256 tokens, 32 columns of a block, 128 packed bytes of a step.
  const Shape shape = GENERATE(Shape{1, 4}, Shape{17, 36}, Shape{256, 32}, Shape{257, 12},
                               Shape{530, 68}, Shape{3, 1052});
  CAPTURE(shape.rows, shape.columns);
  check_rounding(random_floats(shape.rows * shape.columns, 1, 1e-4f),
                 random_floats(shape.rows, 2, 0.01f), shape.rows, shape.columns);
}

TEST_CASE("The rounded gradients show what is not finite in the scale alone, and zeros as zeros") {
  const int rows = 20, columns = 8;
  Floats dy = random_floats(rows * columns, 3, 1e-30f);
  for (int n = 0; n < columns; ++n) dy[index(4, columns, n)] = 0;
  dy[index(5, columns, 1)] = std::numeric_limits<float>::quiet_NaN();
  dy[index(6, columns, 2)] = -std::numeric_limits<float>::infinity();
  check_rounding(dy, random_floats(rows, 4, 0.01f), rows, columns);
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
  CHECK(quantize_gradient_rows(nullptr, 1, 6, nullptr, nullptr, nullptr) == cudaErrorInvalidValue);
  CHECK(quantize_gradient_columns(nullptr, nullptr, 0, 4, nullptr, nullptr, nullptr) ==
        cudaErrorInvalidValue);
  CHECK(transpose_codes(nullptr, 1, 24, nullptr, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
