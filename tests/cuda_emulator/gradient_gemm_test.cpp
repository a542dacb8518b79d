// SPDX-License-Identifier: MIT
// The products of int8 gradients against the sums written out, group by group: equal bits in every
// execution.
#include "cuda/gradient_gemm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
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
using Floats = std::vector<float>;

std::size_t index(int row, int width, int column) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(width) +
         static_cast<std::size_t>(column);
}

struct Case {
  int rows, columns;
  std::vector<int> ends;  // of the groups
  int group_size = 0;     // of all but the last, or 0
  bool adds = true;
  std::vector<std::int8_t> a, b;
  Floats scale, addend;

  Case(int m, int n, std::vector<int> group_ends, int size = 0)
      : rows(m), columns(n), ends(std::move(group_ends)), group_size(size) {
    std::mt19937 random(static_cast<unsigned>(m * 1000 + depth()));
    const auto codes = [&](int count) {
      std::vector<std::int8_t> x(static_cast<std::size_t>(count));
      for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
      return x;
    };
    std::uniform_real_distribution<float> uniform(-1, 1);
    const auto floats = [&](int count, float most) {
      Floats x(static_cast<std::size_t>(count));
      for (float& v : x) v = most * uniform(random);
      return x;
    };
    a = codes(m * depth());
    b = codes(n * depth());
    scale = floats(m * groups(), 1);
    addend = floats(m * n, 1000);
  }
  int depth() const { return ends.back(); }
  int groups() const { return static_cast<int>(ends.size()); }

  Floats product() const {
    Floats y;
    for (int m = 0; m < rows; ++m) {
      for (int n = 0; n < columns; ++n) {
        float f = adds ? addend[index(m, columns, n)] : 0.0f;
        int from = 0;
        for (int g = 0; g < groups(); ++g) {
          int sum = 0;
          for (int k = from; k < ends[static_cast<std::size_t>(g)]; ++k) {
            sum += a[index(m, depth(), k)] * b[index(n, depth(), k)];
          }
          f = std::fma(scale[index(m, groups(), g)], static_cast<float>(sum), f);
          from = ends[static_cast<std::size_t>(g)];
        }
        y.push_back(f);
      }
    }
    return y;
  }
  GradientGemm gemm(DeviceArray<std::int8_t>& device_a, DeviceArray<std::int8_t>& device_b,
                    DeviceArray<float>& device_scale) const {
    GradientGemm p{};
    p.a = device_a.data();
    p.b = device_b.data();
    p.rows = rows;
    p.columns = columns;
    p.depth = depth();
    p.scale = device_scale.data();
    p.groups = groups();
    p.group_size = group_size;
    if (group_size == 0) std::copy(ends.begin(), ends.end() - 1, p.group_ends);
    return p;
  }
};

void check(const Case& c, GradientGemmTile tile) {
  const Floats expected = c.product();
  CAPTURE(c.rows, c.columns, c.depth(), c.groups(), c.group_size, c.adds, static_cast<int>(tile));
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::int8_t> a(c.a), b(c.b);
    DeviceArray<float> scale(c.scale), y(c.addend);
    GradientGemm p = c.gemm(a, b, scale);
    p.parts = 1;
    p.part[0] = {0, y.data(), c.adds ? y.data() : nullptr};
    REQUIRE(cuda_error(gradient_gemm(p, tile, stream)) == "");
    CHECK(y.to_host() == expected);
  });
}

const GradientGemmTile kTiles[] = {GradientGemmTile::large, GradientGemmTile::small};

TEST_CASE("The gradient of one group has the bits of the sum written out") {
  struct Shape {
    int rows, columns, depth;
  };
  const Shape shape = GENERATE(Shape{1, 1, 16}, Shape{17, 68, 64}, Shape{70, 37, 208},
                               Shape{130, 132, 144}, Shape{64, 64, 640});
  for (const GradientGemmTile tile : kTiles) {
    Case c(shape.rows, shape.columns, {shape.depth});
    check(c, tile);
    c.adds = false;
    check(c, tile);
  }
}

TEST_CASE("The gradient of several groups adds them in ascending order, each with its scale") {
  const Case c = GENERATE(Case(35, 41, {64, 128, 192}), Case(35, 41, {64, 320, 384, 400}),
                          Case(130, 68, {448, 576}));
  for (const GradientGemmTile tile : kTiles) check(c, tile);
}

TEST_CASE("The gradient of groups of one size may end in a part of a group") {
  const Case c = GENERATE(Case(35, 41, {256, 272}, 256), Case(20, 68, {256, 512, 768}, 256),
                          Case(5, 4, {16}, 256), Case(9, 20, {64, 128, 192, 208}, 64));
  for (const GradientGemmTile tile : kTiles) check(c, tile);
}

TEST_CASE("The parts of a gradient's rows lie apart, each with what it is added to") {
  const Case c = GENERATE(Case(75, 20, {256, 288}, 256), Case(75, 20, {96}));
  const Floats expected = c.product();
  const int first[] = {0, 3, 70, c.rows};
  for (const GradientGemmTile tile : kTiles) {
    CAPTURE(c.groups(), static_cast<int>(tile));
    test::in_each_execution([&] {
      const test::Stream stream;
      DeviceArray<std::int8_t> a(c.a), b(c.b);
      DeviceArray<float> scale(c.scale);
      GradientGemm p = c.gemm(a, b, scale);
      std::deque<DeviceArray<float>> y;
      const auto rows_of = [&](const Floats& x, int part) {
        return Floats(x.begin() + first[part] * c.columns, x.begin() + first[part + 1] * c.columns);
      };
      for (int i = 0; i < 3; ++i) {
        y.emplace_back(rows_of(c.addend, i));
        p.part[p.parts++] = {first[i], y.back().data(), y.back().data()};
      }
      REQUIRE(cuda_error(gradient_gemm(p, tile, stream)) == "");
      for (int i = 0; i < 3; ++i) {
        CHECK(y[static_cast<std::size_t>(i)].to_host() == rows_of(expected, i));
      }
    });
  }
}

TEST_CASE("The gradient is rounded once into bf16, with what it adds to in fp32") {
  const Case c = GENERATE(Case(9, 19, {64, 192}), Case(9, 20, {80}));
  const Floats expected = test::rounded_to_bf16(c.product());
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::int8_t> a(c.a), b(c.b);
    DeviceArray<float> scale(c.scale), addend(c.addend);
    DeviceArray<__nv_bfloat16> y(expected.size());
    GradientGemm p = c.gemm(a, b, scale);
    p.parts = 1;
    p.part[0] = {0, y.data(), addend.data()};
    REQUIRE(cuda_error(gradient_gemm(p, GradientGemmTile::small, stream)) == "");
    CHECK(test::to_floats(y.to_host()) == expected);
  });
}

TEST_CASE("The gradient refuses groups that do not begin where a part of a stage does") {
  GradientGemm p{};
  p.rows = p.columns = 16;
  p.depth = 128, p.groups = 2, p.group_ends[0] = 64, p.parts = 1;
  const auto status = [&] { return gradient_gemm(p, GradientGemmTile::small, nullptr); };
  p.group_ends[0] = 48;
  CHECK(status() == cudaErrorInvalidValue);
  p.group_size = 96;
  CHECK(status() == cudaErrorInvalidValue);
  p.group_size = 64, p.depth = 72;
  CHECK(status() == cudaErrorInvalidValue);
  p.depth = 128, p.parts = 0;
  CHECK(status() == cudaErrorInvalidValue);
  p.parts = 1, p.part[0].first_row = 1;
  CHECK(status() == cudaErrorInvalidValue);
  p.part[0].first_row = 0, p.group_size = 0, p.groups = kGradientParts + 1;
  CHECK(status() == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
