// SPDX-License-Identifier: MIT
// The int8 product on tensor cores against the sum written out: equal bits in every execution.
#include "cuda/int8_gemm.h"

#include <cmath>
#include <cstdint>
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

enum class Addend { none, apart, in_place };

struct Operands {
  int rows, columns, depth;
  Int8Scale kind;
  int group_size;
  std::vector<std::int8_t> a, b;
  Floats scale, row_scale, addend;

  int groups() const { return (depth + group_size - 1) / group_size; }
};

std::size_t index(int row, int width, int column) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(width) +
         static_cast<std::size_t>(column);
}

Operands random_operands(int rows, int columns, int depth, Int8Scale kind, int group_size) {
  Operands o{rows, columns, depth, kind, group_size, {}, {}, {}, {}, {}};
  std::mt19937 random(static_cast<unsigned>(rows * 1000 + depth));
  const auto codes = [&](int count) {
    std::vector<std::int8_t> x(static_cast<std::size_t>(count));
    for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
    return x;
  };
  const auto floats = [&](int count) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    Floats x(static_cast<std::size_t>(count));
    for (auto& v : x) v = uniform(random);
    return x;
  };
  o.a = codes(rows * depth);
  o.b = codes(columns * depth);
  o.scale = floats(kind == Int8Scale::tensor   ? 1
                   : kind == Int8Scale::column ? columns
                                               : columns * o.groups());
  o.row_scale = floats(rows);
  o.addend = floats(rows * columns);
  for (auto& v : o.addend) v *= 1000;
  return o;
}

int sum(const Operands& o, int row, int column, int from, int end) {
  int sum = 0;
  for (int k = from; k < end; ++k) {
    sum += o.a[index(row, o.depth, k)] * o.b[index(column, o.depth, k)];
  }
  return sum;
}

float output(const Operands& o, int row, int column, const float* addend) {
  const float r = o.row_scale[static_cast<std::size_t>(row)];
  if (!has_groups(o.kind)) {
    const float s = r * o.scale[o.kind == Int8Scale::column ? static_cast<std::size_t>(column) : 0];
    const auto value = static_cast<float>(sum(o, row, column, 0, o.depth));
    if (addend == nullptr) return s * value;
    return *addend + s * value;
  }
  float f = 0.0f;
  for (int g = 0; g < o.groups(); ++g) {
    const int end = std::min((g + 1) * o.group_size, o.depth);
    f = std::fma(o.scale[index(column, o.groups(), g)],
                 static_cast<float>(sum(o, row, column, g * o.group_size, end)), f);
  }
  return addend == nullptr ? f * r : *addend + f * r;
}

Floats product(const Operands& o, Addend kind) {
  Floats y;
  for (int t = 0; t < o.rows; ++t) {
    for (int n = 0; n < o.columns; ++n) {
      y.push_back(
          output(o, t, n, kind == Addend::none ? nullptr : &o.addend[index(t, o.columns, n)]));
    }
  }
  return y;
}

// The operands in device memory. y holds the addend at first.
struct OnDevice {
  DeviceArray<std::int8_t> a, b;
  DeviceArray<float> scale, row_scale, addend, y;

  explicit OnDevice(const Operands& o)
      : a(o.a), b(o.b), scale(o.scale), row_scale(o.row_scale), addend(o.addend), y(o.addend) {}
  Int8Gemm gemm(const Operands& o, Addend kind) {
    return {a.data(),
            b.data(),
            o.rows,
            o.columns,
            o.depth,
            o.kind,
            scale.data(),
            o.group_size,
            row_scale.data(),
            kind == Addend::none ? nullptr : kind == Addend::apart ? addend.data() : y.data(),
            y.data()};
  }
};

void check_product(const Operands& o, Addend addend, Int8GemmTile tile) {
  const Floats expected = product(o, addend);
  CAPTURE(o.rows, o.columns, o.depth, static_cast<int>(o.kind), o.group_size,
          static_cast<int>(addend), tile == Int8GemmTile::large);
  test::in_each_execution([&] {
    const test::Stream stream;
    OnDevice device(o);
    REQUIRE(cuda_error(int8_gemm(device.gemm(o, addend), tile, stream)) == "");
    CHECK(device.y.to_host() == expected);
  });
}

// Shapes around the tile and the stages: one stage and many, parts of a fragment, of a chunk.
struct Shape {
  int rows, columns, depth;
};

TEST_CASE("The int8 product has the bits of the sum written out") {
  const Shape shape = GENERATE(Shape{1, 4, 16}, Shape{17, 68, 64}, Shape{70, 37, 208},
                               Shape{130, 132, 144}, Shape{64, 64, 320});
  const auto tile = GENERATE(Int8GemmTile::small, Int8GemmTile::large);
  check_product(random_operands(shape.rows, shape.columns, shape.depth, Int8Scale::tensor, 0),
                Addend::none, tile);
}

TEST_CASE("The int8 product adds to what was there") {
  const auto kind = GENERATE(Int8Scale::tensor, Int8Scale::column);
  const int columns = GENERATE(1, 19, 20);  // an odd number is stored one by one
  const auto addend = GENERATE(Addend::none, Addend::apart, Addend::in_place);
  check_product(random_operands(9, columns, 48, kind, 0), addend, Int8GemmTile::small);
}

TEST_CASE("The int8 product with groups adds them in ascending order, each with its scale") {
  struct Groups {
    int depth, size;
  };
  const auto groups = GENERATE(Groups{64, 64}, Groups{192, 64}, Groups{384, 128}, Groups{272, 256},
                               Groups{16, 256});
  const auto addend = GENERATE(Addend::none, Addend::in_place);
  check_product(random_operands(35, 41, groups.depth, Int8Scale::column_groups, groups.size),
                addend, Int8GemmTile::small);
}

TEST_CASE("The int8 product with groups has the same bits with large tiles") {
  check_product(random_operands(130, 132, 320, Int8Scale::column_groups, 128), Addend::apart,
                Int8GemmTile::large);
}

TEST_CASE("The int8 product is rounded once into bf16, with what it adds to in fp32") {
  const auto kind = GENERATE(Int8Scale::tensor, Int8Scale::column, Int8Scale::column_groups);
  const int columns = GENERATE(19, 20);
  const auto addend = GENERATE(Addend::none, Addend::apart);
  const Operands o = random_operands(9, columns, 128, kind, 64);
  const Floats expected = test::rounded_to_bf16(product(o, addend));
  CAPTURE(static_cast<int>(kind), columns, static_cast<int>(addend));
  test::in_each_execution([&] {
    const test::Stream stream;
    OnDevice device(o);
    DeviceArray<__nv_bfloat16> y(expected.size());
    Int8Gemm gemm = device.gemm(o, addend);
    gemm.y = y.data();
    REQUIRE(cuda_error(int8_gemm(gemm, Int8GemmTile::small, stream)) == "");
    CHECK(test::to_floats(y.to_host()) == expected);
  });
}

TEST_CASE("The int8 sums that another kernel left are rounded once into bf16") {
  const Operands o = random_operands(3, 516, 32, Int8Scale::tensor, 0);
  const Floats expected = test::rounded_to_bf16(product(o, Addend::apart));
  std::vector<std::int32_t> sums;
  for (int t = 0; t < o.rows; ++t) {
    for (int n = 0; n < o.columns; ++n) sums.push_back(sum(o, t, n, 0, o.depth));
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    OnDevice device(o);
    DeviceArray<std::int32_t> device_sums(sums);
    DeviceArray<__nv_bfloat16> y(expected.size());
    Int8Gemm gemm = device.gemm(o, Addend::apart);
    gemm.y = y.data();
    REQUIRE(cuda_error(write_sums(gemm, device_sums.data(), stream)) == "");
    CHECK(test::to_floats(y.to_host()) == expected);
  });
}

TEST_CASE("The int8 sums that another kernel left become the same reals, also in their own place") {
  const auto kind = GENERATE(Int8Scale::tensor, Int8Scale::column);
  const int columns = GENERATE(4, 516);  // more than a block's part of a row
  const bool in_place = GENERATE(false, true);
  const Operands o = random_operands(3, columns, 32, kind, 0);
  const Floats expected = product(o, Addend::apart);
  std::vector<std::int32_t> sums;
  for (int t = 0; t < o.rows; ++t) {
    for (int n = 0; n < o.columns; ++n) sums.push_back(sum(o, t, n, 0, o.depth));
  }
  CAPTURE(static_cast<int>(kind), columns, in_place);
  test::in_each_execution([&] {
    const test::Stream stream;
    OnDevice device(o);
    DeviceArray<std::int32_t> device_sums(sums);
    Int8Gemm gemm = device.gemm(o, Addend::apart);
    if (in_place) gemm.y = reinterpret_cast<float*>(device_sums.data());
    REQUIRE(cuda_error(write_sums(gemm, device_sums.data(), stream)) == "");
    Floats y = device.y.to_host();
    if (in_place) {
      REQUIRE(cuda_error(cudaMemcpy(y.data(), device_sums.data(), device_sums.bytes(),
                                    cudaMemcpyDeviceToHost)) == "");
    }
    CHECK(y == expected);
  });
}

TEST_CASE("The int8 product refuses shapes that its copies cannot read") {
  Int8Gemm p{};
  p.rows = p.columns = 16;
  p.depth = 64;
  const auto status = [&] { return int8_gemm(p, Int8GemmTile::small, nullptr); };
  p.depth = 72;
  CHECK(status() == cudaErrorInvalidValue);
  p.depth = 64, p.rows = 0;
  CHECK(status() == cudaErrorInvalidValue);
  p.rows = 16, p.kind = Int8Scale::column_groups, p.group_size = 96;
  CHECK(status() == cudaErrorInvalidValue);
  p.group_size = 64;
  CHECK(write_sums(p, nullptr, nullptr) == cudaErrorInvalidValue);
  p.kind = Int8Scale::tensor, p.columns = 18;
  CHECK(write_sums(p, nullptr, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
