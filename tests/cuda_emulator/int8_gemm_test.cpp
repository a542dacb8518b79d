// SPDX-License-Identifier: MIT
// The int8 product on tensor cores against the sum written out: equal bits in every execution.
#include "cuda/int8_gemm.h"

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

struct Operands {
  int rows, columns, depth;
  std::vector<std::int8_t> codes, weights;
  std::vector<float> act_scale;
  float weight_scale = 0.37f;
};

Operands random_operands(int rows, int columns, int depth) {
  Operands o{rows, columns, depth, {}, {}, {}};
  std::mt19937 random(static_cast<unsigned>(rows * 1000 + depth));
  const auto codes = [&](int count) {
    std::vector<std::int8_t> x(static_cast<std::size_t>(count));
    for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
    return x;
  };
  o.codes = codes(rows * depth);
  o.weights = codes(columns * depth);
  for (int t = 0; t < rows; ++t) o.act_scale.push_back(0.01f + 0.001f * static_cast<float>(t));
  return o;
}

std::vector<float> product(const Operands& o) {
  std::vector<float> y;
  for (int t = 0; t < o.rows; ++t) {
    for (int n = 0; n < o.columns; ++n) {
      std::int32_t sum = 0;
      for (int k = 0; k < o.depth; ++k) {
        sum += o.codes[static_cast<std::size_t>(t * o.depth + k)] *
               o.weights[static_cast<std::size_t>(n * o.depth + k)];
      }
      y.push_back(o.act_scale[static_cast<std::size_t>(t)] * o.weight_scale *
                  static_cast<float>(sum));
    }
  }
  return y;
}

template <typename Output>
std::vector<Output> run(const Operands& o, Int8GemmTile tile) {
  const test::Stream stream;
  DeviceArray<std::int8_t> codes(o.codes), weights(o.weights);
  DeviceArray<float> act_scale(o.act_scale), weight_scale(std::vector<float>{o.weight_scale});
  DeviceArray<Output> y(static_cast<std::size_t>(o.rows * o.columns));
  const Int8Gemm<Output> product{codes.data(),        act_scale.data(), weights.data(),
                                 weight_scale.data(), y.data(),         o.rows,
                                 o.columns,           o.depth};
  REQUIRE(cuda_error(int8_gemm(product, tile, stream)) == "");
  return y.to_host();
}

// Shapes around the tile and the stages: one stage and many, parts of a fragment, of a chunk.
struct Shape {
  int rows, columns, depth;
};

TEST_CASE("The int8 product has the bits of the sum written out") {
  const Shape shape = GENERATE(Shape{1, 4, 16}, Shape{17, 68, 64}, Shape{70, 36, 208},
                               Shape{130, 132, 144}, Shape{64, 64, 320});
  const auto tile = GENERATE(Int8GemmTile::small, Int8GemmTile::large);
  const Operands o = random_operands(shape.rows, shape.columns, shape.depth);
  const std::vector<float> expected = product(o);
  CAPTURE(shape.rows, shape.columns, shape.depth, tile == Int8GemmTile::large);
  test::in_each_execution([&] { CHECK(run<float>(o, tile) == expected); });
}

TEST_CASE("The int8 product rounds to bf16 once") {
  const Operands o = random_operands(33, 20, 96);
  std::vector<unsigned> expected;
  for (const float y : product(o)) expected.push_back(__bfloat16_as_ushort(__float2bfloat16_rn(y)));
  test::in_each_execution([&] {
    std::vector<unsigned> bits;
    for (const auto y : run<__nv_bfloat16>(o, Int8GemmTile::small)) {
      bits.push_back(__bfloat16_as_ushort(y));
    }
    CHECK(bits == expected);
  });
}

TEST_CASE("The int8 product refuses shapes that its copies cannot read") {
  Int8Gemm<float> p{nullptr, nullptr, nullptr, nullptr, nullptr, 16, 16, 64};
  const auto status = [&] { return int8_gemm(p, Int8GemmTile::small, nullptr); };
  p.depth = 72;
  CHECK(status() == cudaErrorInvalidValue);
  p.depth = 64, p.columns = 18;
  CHECK(status() == cudaErrorInvalidValue);
  p.columns = 16, p.rows = 0;
  CHECK(status() == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
