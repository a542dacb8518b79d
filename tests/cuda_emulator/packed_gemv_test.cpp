// SPDX-License-Identifier: MIT
// The products with packed weights against the sums over unpacked ones: equal bits in every
// execution.
#include "cuda/packed_gemv.h"

#include <cmath>
#include <cstdint>
#include <memory>
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

enum class Residual { none, apart, in_place };

struct Matrix {
  int columns, groups;
  Residual residual_kind;
  std::vector<std::uint8_t> packed;
  Floats scale, residual;
};

struct Case {
  int tokens, depth;
  std::vector<std::int8_t> codes;
  Floats act_scale;
  std::vector<Matrix> matrices;
  bool bf16 = false;  // y
};

std::size_t index(int row, int width, int column) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(width) +
         static_cast<std::size_t>(column);
}

Case make_case(int tokens, int depth, const std::vector<Matrix>& shapes) {
  std::mt19937 random(7);
  const auto floats = [&](int count) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    Floats x(static_cast<std::size_t>(count));
    for (auto& v : x) v = uniform(random);
    return x;
  };
  Case c{tokens, depth, {}, floats(tokens), shapes};
  for (int i = 0; i < tokens * depth; ++i) {
    c.codes.push_back(static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128));
  }
  for (Matrix& m : c.matrices) {
    for (int i = 0; i < m.columns / 4 * depth; ++i) {
      unsigned bits = 0;
      for (int q = 0; q < 4; ++q) bits |= random() % 3 << (2 * q);
      m.packed.push_back(static_cast<std::uint8_t>(bits));
    }
    m.scale = floats(m.groups == 0 ? 1 : m.columns * m.groups);
    m.residual = floats(tokens * m.columns);
  }
  return c;
}

float output(const Case& c, const Matrix& m, int t, int n) {
  const int row = n % (m.columns / 4), shift = 2 * (n / (m.columns / 4));
  const auto sum_of = [&](int from, int end) {
    int sum = 0;
    for (int k = from; k < end; ++k) {
      const int trit = (m.packed[index(row, c.depth, k)] >> shift & 3) - 1;
      sum += trit * c.codes[index(t, c.depth, k)];
    }
    return static_cast<float>(sum);
  };
  const float act_scale = c.act_scale[static_cast<std::size_t>(t)];
  float y = act_scale * m.scale[0] * sum_of(0, c.depth);
  if (m.groups > 0) {
    const int size = c.depth / m.groups;
    float f = 0;
    for (int g = 0; g < m.groups; ++g) {
      f = std::fma(m.scale[index(n, m.groups, g)], sum_of(g * size, (g + 1) * size), f);
    }
    y = f * act_scale;
  }
  return m.residual_kind == Residual::none ? y : m.residual[index(t, m.columns, n)] + y;
}

struct DeviceMatrix {
  DeviceArray<std::uint8_t> packed;
  DeviceArray<float> scale, residual, y;
  DeviceArray<__nv_bfloat16> narrow_y;
  explicit DeviceMatrix(const Matrix& m)
      : packed(m.packed),
        scale(m.scale),
        residual(m.residual),
        y(m.residual),
        narrow_y(m.residual.size()) {}
};

void check_products(const Case& c) {
  std::vector<Floats> expected;
  for (const Matrix& m : c.matrices) {
    expected.emplace_back();
    for (int t = 0; t < c.tokens; ++t) {
      for (int n = 0; n < m.columns; ++n) expected.back().push_back(output(c, m, t, n));
    }
    if (c.bf16) expected.back() = test::rounded_to_bf16(expected.back());
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::int8_t> codes(c.codes);
    DeviceArray<float> act_scale(c.act_scale);
    std::vector<std::unique_ptr<DeviceMatrix>> device;
    PackedGemv gemv{codes.data(), act_scale.data(), c.tokens, c.depth, 0, {}};
    for (const Matrix& m : c.matrices) {
      DeviceMatrix& d = *device.emplace_back(std::make_unique<DeviceMatrix>(m));
      const float* residual = m.residual_kind == Residual::none    ? nullptr
                              : m.residual_kind == Residual::apart ? d.residual.data()
                                                                   : d.y.data();
      const Reals y = c.bf16 ? Reals(d.narrow_y.data()) : Reals(d.y.data());
      gemv.matrix[gemv.products++] = {d.packed.data(), d.scale.data(), m.columns,
                                      m.groups,        residual,       y};
    }
    REQUIRE(cuda_error(packed_gemv(gemv, stream)) == "");
    for (std::size_t i = 0; i < device.size(); ++i) {
      DeviceMatrix& d = *device[i];
      CHECK((c.bf16 ? test::to_floats(d.narrow_y.to_host()) : d.y.to_host()) == expected[i]);
    }
  });
}

TEST_CASE("The packed product has the bits of the sum over unpacked weights") {
  const int tokens = GENERATE(1, 2, 3, 4, 5, 8);
  const int columns = GENERATE(4, 36);
  // A part of a warp's step; two, four and eight warps for a row; and columns for a second round.
  const int depth = GENERATE(64, 576, 1088, 4160, 16448);
  CAPTURE(tokens, columns, depth);
  check_products(make_case(tokens, depth, {{columns, 0, Residual::none, {}, {}, {}}}));
}

TEST_CASE("The packed product with groups adds them in ascending order, each with its scale") {
  const int tokens = GENERATE(1, 2, 3, 7);
  const int groups = GENERATE(1, 3, 17);
  CAPTURE(tokens, groups);
  // 17 pieces of 64 columns are three steps of a warp; 51 of them make groups of one piece or 3.
  check_products(
      make_case(tokens, groups == 3 ? 3264 : 1088, {{20, groups, Residual::in_place, {}, {}, {}}}));
}

TEST_CASE("The packed products of one input are one call, with and without groups and residuals") {
  check_products(make_case(3, 128,
                           {{36, 0, Residual::none, {}, {}, {}},
                            {8, 2, Residual::apart, {}, {}, {}},
                            {20, 0, Residual::in_place, {}, {}, {}},
                            {4, 0, Residual::apart, {}, {}, {}},
                            {12, 1, Residual::none, {}, {}, {}}}));
}

TEST_CASE("The packed products are rounded once into bf16, with and without groups") {
  Case c =
      make_case(3, 128, {{36, 0, Residual::none, {}, {}, {}}, {8, 2, Residual::none, {}, {}, {}}});
  c.bf16 = true;
  check_products(c);
}

TEST_CASE("The packed product refuses shapes that it has no kernel for") {
  PackedGemv p{};
  p.tokens = 1, p.depth = 64, p.products = 1;
  p.matrix[0].columns = 16;
  const auto refused = [](const PackedGemv& gemv) {
    return packed_gemv(gemv, nullptr) == cudaErrorInvalidValue;
  };
  PackedGemv q = p;
  q.tokens = 9;
  CHECK(refused(q));
  q = p, q.depth = 48;
  CHECK(refused(q));
  q = p, q.matrix[0].columns = 6;
  CHECK(refused(q));
  q = p, q.matrix[0].groups = 2;
  CHECK(refused(q));
  q = p, q.products = 0;
  CHECK(refused(q));
}

}  // namespace
}  // namespace bitnet::cuda
