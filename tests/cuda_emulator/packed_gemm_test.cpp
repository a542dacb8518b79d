// SPDX-License-Identifier: MIT
// The products of many tokens with packed weights against the sum written out: equal bits in every
// execution.
#include "cuda/packed_gemm.h"

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

Floats random_floats(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  Floats x(static_cast<std::size_t>(count));
  for (float& v : x) v = uniform(random);
  return x;
}

enum class Residual { none, apart, in_place };

struct Matrix {
  int columns;
  Residual residual = Residual::none;
  bool bf16 = false;
};

struct Case {
  int tokens, depth;
  std::vector<Matrix> matrices;
  std::vector<std::int8_t> codes;
  Floats act_scale;

  Case(int t, int k, std::vector<Matrix> all)
      : tokens(t), depth(k), matrices(std::move(all)), act_scale(random_floats(t, 1)) {
    std::mt19937 random(2);
    for (int i = 0; i < t * k; ++i) {
      codes.push_back(static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128));
    }
  }
  float weight_scale(std::size_t m) const { return 0.25f * static_cast<float>(m + 1) + 0.1f; }
  std::vector<std::uint8_t> packed(std::size_t m) const {
    std::mt19937 random(static_cast<unsigned>(m) + 3);
    std::vector<std::uint8_t> bytes(index(matrices[m].columns / 4, depth, 0));
    for (auto& byte : bytes) {
      unsigned bits = 0;
      for (int q = 0; q < 4; ++q) bits |= random() % 3 << (2 * q);
      byte = static_cast<std::uint8_t>(bits);
    }
    return bytes;
  }
  Floats residual(std::size_t m) const {
    return random_floats(tokens * matrices[m].columns, static_cast<unsigned>(m) + 50);
  }
  Floats product(std::size_t m) const {
    const int columns = matrices[m].columns, quarter = columns / 4;
    const std::vector<std::uint8_t> weights = packed(m);
    const Floats before = residual(m);
    Floats y;
    for (int t = 0; t < tokens; ++t) {
      const float scale = act_scale[static_cast<std::size_t>(t)] * weight_scale(m);
      for (int n = 0; n < columns; ++n) {
        int sum = 0;
        for (int k = 0; k < depth; ++k) {
          const int byte = weights[index(n % quarter, depth, k)];
          sum += codes[index(t, depth, k)] * ((byte >> (2 * (n / quarter)) & 3) - 1);
        }
        const float value = scale * static_cast<float>(sum);
        y.push_back(matrices[m].residual == Residual::none ? value
                                                           : before[index(t, columns, n)] + value);
      }
    }
    return matrices[m].bf16 ? test::rounded_to_bf16(y) : y;
  }
};

void check(const Case& c, PackedGemmTile tile) {
  std::vector<Floats> expected;
  for (std::size_t m = 0; m < c.matrices.size(); ++m) expected.push_back(c.product(m));
  CAPTURE(c.tokens, c.depth, c.matrices.size(), static_cast<int>(tile));
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::int8_t> codes(c.codes);
    DeviceArray<float> act_scale(c.act_scale);
    std::deque<DeviceArray<std::uint8_t>> packed;
    std::deque<DeviceArray<float>> scale, residual, y;
    std::deque<DeviceArray<__nv_bfloat16>> narrow;
    PackedGemv p{};
    p.codes = codes.data();
    p.act_scale = act_scale.data();
    p.tokens = c.tokens;
    p.depth = c.depth;
    for (std::size_t m = 0; m < c.matrices.size(); ++m) {
      const Matrix& matrix = c.matrices[m];
      packed.emplace_back(c.packed(m));
      scale.emplace_back(Floats{c.weight_scale(m)});
      residual.emplace_back(c.residual(m));
      y.emplace_back(c.residual(m));
      narrow.emplace_back(expected[m].size());
      const float* added = nullptr;
      if (matrix.residual == Residual::apart) added = residual.back().data();
      if (matrix.residual == Residual::in_place) added = y.back().data();
      p.matrix[p.products++] = {packed.back().data(),
                                scale.back().data(),
                                matrix.columns,
                                0,
                                added,
                                matrix.bf16 ? Reals(narrow.back().data()) : Reals(y.back().data())};
    }
    REQUIRE(cuda_error(packed_gemm(p, tile, stream)) == "");
    for (std::size_t m = 0; m < c.matrices.size(); ++m) {
      CAPTURE(m);
      CHECK((c.matrices[m].bf16 ? test::to_floats(narrow[m].to_host()) : y[m].to_host()) ==
            expected[m]);
    }
  });
}

TEST_CASE("The product with packed weights has the bits of the sum written out") {
  // Around a tile of 64 tokens, of 16 and 32 packed rows, a chunk, a stage and a ring of stages; a
  // quarter that is no multiple of 4.
  struct Shape {
    int tokens, columns, depth;
  };
  const Shape shape = GENERATE(Shape{1, 4, 16}, Shape{17, 64, 128}, Shape{65, 148, 144},
                               Shape{64, 128, 640}, Shape{70, 36, 272});
  const auto tile = GENERATE(PackedGemmTile::large, PackedGemmTile::small);
  check(Case(shape.tokens, shape.depth, {{shape.columns}}), tile);
}

TEST_CASE("The products of several packed matrices are done together, each with its own residual") {
  const auto tile = GENERATE(PackedGemmTile::large, PackedGemmTile::small);
  check(Case(9, 80,
             {{132, Residual::apart}, {20, Residual::in_place}, {64, Residual::none, true}, {4}}),
        tile);
  check(Case(3, 64, {{12, Residual::none, true}, {72, Residual::none, true}}), tile);
}

TEST_CASE("The product with packed weights refuses what it has no kernel for") {
  PackedGemv p{};
  p.tokens = 16, p.depth = 64, p.products = 1;
  p.matrix[0].columns = 16;
  const auto status = [&] { return packed_gemm(p, PackedGemmTile::small, nullptr); };
  p.depth = 72;
  CHECK(status() == cudaErrorInvalidValue);
  p.depth = kPackedGemmDepth + 16;
  CHECK(status() == cudaErrorInvalidValue);
  p.depth = 64, p.matrix[0].columns = 18;
  CHECK(status() == cudaErrorInvalidValue);
  p.matrix[0].columns = 16, p.matrix[0].groups = 1;
  CHECK(status() == cudaErrorInvalidValue);
  p.matrix[0].groups = 0, p.products = 0;
  CHECK(status() == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
