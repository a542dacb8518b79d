// SPDX-License-Identifier: MIT
// The bf16 product on tensor cores: equal bits where every sum is exact, and rows that do not
// depend on what is around them.
#include "cuda/bf16_gemm.h"

#include <random>
#include <vector>

#include "tests/cuda_emulator/bf16_values.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;
using Halves = std::vector<__nv_bfloat16>;

struct Operands {
  int rows, columns, depth;
  std::vector<float> a, b;  // numbers of bf16

  Halves narrow(const std::vector<float>& x) const {
    Halves y;
    for (const float v : x) y.push_back(__float2bfloat16_rn(v));
    return y;
  }
};

// Multiples of `step` below 64 steps.
Operands random_operands(int rows, int columns, int depth, float step = 0.25f) {
  Operands o{rows, columns, depth, {}, {}};
  std::mt19937 random(static_cast<unsigned>(rows * 1000 + depth));
  const auto number = [&] {
    return step * static_cast<float>(static_cast<int>(random() % 127) - 63);
  };
  for (int i = 0; i < rows * depth; ++i) o.a.push_back(number());
  for (int i = 0; i < columns * depth; ++i) o.b.push_back(number());
  return o;
}

// Exact: no partial sum needs more than fp32's 24 bits.
std::vector<float> product(const Operands& o, float before) {
  std::vector<float> y;
  for (int t = 0; t < o.rows; ++t) {
    for (int n = 0; n < o.columns; ++n) {
      float sum = before;
      for (int k = 0; k < o.depth; ++k) {
        sum += o.a[static_cast<std::size_t>(t * o.depth + k)] *
               o.b[static_cast<std::size_t>(n * o.depth + k)];
      }
      y.push_back(sum);
    }
  }
  return y;
}

std::vector<float> run(const Operands& o, Bf16GemmTile tile) {
  const test::Stream stream;
  DeviceArray<__nv_bfloat16> a(o.narrow(o.a)), b(o.narrow(o.b));
  DeviceArray<float> y(static_cast<std::size_t>(o.rows * o.columns));  // poisoned
  const Bf16Gemm p{a.data(), b.data(), y.data(), o.rows, o.columns, o.depth, false};
  REQUIRE(cuda_error(bf16_gemm(p, tile, stream)) == "");
  return y.to_host();
}

// Shapes around the tile and the stages: one stage and many, parts of a fragment, of a slice; an odd
// number of columns.
struct Shape {
  int rows, columns, depth;
};

TEST_CASE("The bf16 product has the bits of the sum written out") {
  const Shape shape = GENERATE(Shape{1, 1, 8}, Shape{17, 67, 32}, Shape{70, 36, 104},
                               Shape{130, 129, 72}, Shape{64, 64, 160}, Shape{3, 20, 320});
  const auto tile = GENERATE(Bf16GemmTile::few_rows, Bf16GemmTile::small, Bf16GemmTile::large);
  const Operands o = random_operands(shape.rows, shape.columns, shape.depth);
  const std::vector<float> expected = product(o, 0);
  CAPTURE(shape.rows, shape.columns, shape.depth, static_cast<int>(tile));
  test::in_each_execution([&] { CHECK(run(o, tile) == expected); });
}

TEST_CASE("The bf16 product adds to what is there, at any address of a float") {
  const int columns = GENERATE(6, 7, 8), offset = GENERATE(0, 1);
  const Operands o = random_operands(19, columns, 40);
  std::vector<float> expected = product(o, 1000);
  expected.insert(expected.begin(), static_cast<std::size_t>(offset), 1000.0f);
  CAPTURE(columns, offset);
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<__nv_bfloat16> a(o.narrow(o.a)), b(o.narrow(o.b));
    DeviceArray<float> y(std::vector<float>(expected.size(), 1000));
    const Bf16Gemm p{a.data(), b.data(), y.data() + offset, o.rows, o.columns, o.depth, true};
    REQUIRE(cuda_error(bf16_gemm(p, Bf16GemmTile::small, stream)) == "");
    CHECK(y.to_host() == expected);
  });
}

TEST_CASE("The bf16 product is rounded once into bf16, alone or with what is there") {
  const int columns = GENERATE(6, 7, 8), offset = GENERATE(0, 1);
  const bool accumulate = GENERATE(false, true);
  const Operands o = random_operands(19, columns, 40);
  const float before = 1000;  // a number of bf16
  std::vector<float> expected = test::rounded_to_bf16(product(o, accumulate ? before : 0));
  expected.insert(expected.begin(), static_cast<std::size_t>(offset), before);
  CAPTURE(columns, offset, accumulate);
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<__nv_bfloat16> a(o.narrow(o.a)), b(o.narrow(o.b));
    DeviceArray<__nv_bfloat16> y(test::to_bf16(std::vector<float>(expected.size(), before)));
    const Bf16Gemm p{a.data(), b.data(), y.data() + offset, o.rows, o.columns, o.depth, accumulate};
    REQUIRE(cuda_error(bf16_gemm(p, Bf16GemmTile::small, stream)) == "");
    CHECK(test::to_floats(y.to_host()) == expected);
  });
}

TEST_CASE("A row of the bf16 product has the same bits among others, in any tile") {
  const Operands o = random_operands(67, 70, 72, 0.1f);  // not exact
  const std::vector<float> all = run(o, Bf16GemmTile::small);
  CHECK(run(o, Bf16GemmTile::large) == all);
  CHECK(run(o, Bf16GemmTile::few_rows) == all);
  for (const int row : {0, 5, 40, 66}) {
    Operands alone = o;
    alone.rows = 1;
    alone.a.assign(o.a.begin() + row * o.depth, o.a.begin() + (row + 1) * o.depth);
    const std::vector<float> expected(all.begin() + row * o.columns,
                                      all.begin() + (row + 1) * o.columns);
    for (const auto tile : {Bf16GemmTile::few_rows, Bf16GemmTile::small, Bf16GemmTile::large}) {
      CHECK(run(alone, tile) == expected);
    }
  }
}

TEST_CASE("The bf16 product refuses shapes that its copies cannot read") {
  Bf16Gemm p{nullptr, nullptr, nullptr, 16, 16, 64, false};
  const auto status = [&] { return bf16_gemm(p, Bf16GemmTile::small, nullptr); };
  p.depth = 12;
  CHECK(status() == cudaErrorInvalidValue);
  p.depth = 0;
  CHECK(status() == cudaErrorInvalidValue);
  p.depth = 64, p.columns = 0;
  CHECK(status() == cudaErrorInvalidValue);
  p.columns = 16, p.rows = 0;
  CHECK(status() == cudaErrorInvalidValue);
  p.rows = 65536 * 64;  // more blocks than a grid has rows
  CHECK(status() == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
