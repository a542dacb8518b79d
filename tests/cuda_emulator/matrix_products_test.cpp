// SPDX-License-Identifier: MIT
// Products by cuBLASLt against the sum written out, and what happens where it cannot be used.
#include "cuda/matrix_products.h"

#include <random>
#include <vector>

#include "tests/cuda_emulator/bf16_values.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::DeviceArray;

std::vector<std::int8_t> random_codes(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int8_t> x(static_cast<std::size_t>(count));
  for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
  return x;
}

// Multiples of 1/8 below 16: their sums are exact in fp32, whatever the order.
std::vector<__nv_bfloat16> eighths(const std::vector<std::int8_t>& codes) {
  std::vector<__nv_bfloat16> x;
  for (const std::int8_t c : codes) x.push_back(__float2bfloat16_rn(static_cast<float>(c) / 8));
  return x;
}

struct Operands {
  MatrixShape shape;
  std::vector<std::int8_t> a, b;

  explicit Operands(const MatrixShape& s)
      : shape(s), a(random_codes(s.m * s.k, 1)), b(random_codes(s.n * s.k, 2)) {}

  std::vector<std::int32_t> product() const {
    std::vector<std::int32_t> y;
    for (std::int64_t t = 0; t < shape.m; ++t) {
      for (std::int64_t n = 0; n < shape.n; ++n) {
        std::int32_t sum = 0;
        for (std::int64_t k = 0; k < shape.k; ++k) {
          sum += a[static_cast<std::size_t>(t * shape.k + k)] *
                 b[static_cast<std::size_t>(n * shape.k + k)];
        }
        y.push_back(sum);
      }
    }
    return y;
  }
};

TEST_CASE("cuBLASLt's int8 products of several shapes are exact") {
  test::in_each_execution([] {
    const test::Stream stream;
    MatrixProducts products(stream);
    CHECK(products.unusable() == "");
    for (const MatrixShape shape : {MatrixShape{5, 12, 16}, MatrixShape{1, 4, 4},
                                    MatrixShape{33, 20, 68}, MatrixShape{5, 12, 16}}) {
      const Operands o(shape);
      DeviceArray<std::int8_t> a(o.a), b(o.b);
      DeviceArray<std::int32_t> y(static_cast<std::size_t>(shape.m * shape.n));
      REQUIRE(products.int8(shape, a.data(), b.data(), y.data()));
      CHECK(y.to_host() == o.product());
    }
  });
}

TEST_CASE("cuBLASLt's bf16 products overwrite or accumulate in fp32") {
  const MatrixShape shape = GENERATE(MatrixShape{5, 12, 16}, MatrixShape{7, 3, 24});
  const Operands o(shape);
  std::vector<float> once, twice;
  for (const std::int32_t sum : o.product()) {
    once.push_back(static_cast<float>(sum) / 64);
    twice.push_back(static_cast<float>(sum) / 32);
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    MatrixProducts products(stream);
    DeviceArray<__nv_bfloat16> a(eighths(o.a)), b(eighths(o.b));
    DeviceArray<float> y(once.size());  // poisoned: must not be read
    REQUIRE(products.bf16(shape, a.data(), b.data(), y.data(), false));
    CHECK(y.to_host() == once);
    REQUIRE(products.bf16(shape, a.data(), b.data(), y.data(), true));
    CHECK(y.to_host() == twice);
  });
}

TEST_CASE("cuBLASLt's bf16 products are rounded once where the result is bf16") {
  const MatrixShape shape = GENERATE(MatrixShape{5, 12, 16}, MatrixShape{7, 8, 24});
  const Operands o(shape);
  std::vector<float> sums;
  for (const std::int32_t sum : o.product()) sums.push_back(static_cast<float>(sum) / 64);
  const std::vector<float> once = test::rounded_to_bf16(sums);
  std::vector<float> twice;
  for (std::size_t i = 0; i < sums.size(); ++i) twice.push_back(once[i] + sums[i]);
  test::in_each_execution([&] {
    const test::Stream stream;
    MatrixProducts products(stream);
    DeviceArray<__nv_bfloat16> a(eighths(o.a)), b(eighths(o.b));
    DeviceArray<float> wide(once.size());
    REQUIRE(products.bf16(shape, a.data(), b.data(), wide.data(), false));  // a plan of its own
    DeviceArray<__nv_bfloat16> y(once.size());  // poisoned: must not be read
    REQUIRE(products.bf16(shape, a.data(), b.data(), y.data(), false));
    CHECK(test::to_floats(y.to_host()) == once);
    REQUIRE(products.bf16(shape, a.data(), b.data(), y.data(), true));
    CHECK(test::to_floats(y.to_host()) == test::rounded_to_bf16(twice));
    CHECK(wide.to_host() == sums);
  });
}

// [rows, k] as [k, rows].
std::vector<__nv_bfloat16> transposed(const std::vector<__nv_bfloat16>& x, std::int64_t rows,
                                      std::int64_t k) {
  std::vector<__nv_bfloat16> y;
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t r = 0; r < rows; ++r) y.push_back(x[static_cast<std::size_t>(r * k + i)]);
  }
  return y;
}

TEST_CASE("cuBLASLt's bf16 products read operands that are contiguous along their rows") {
  constexpr auto kAlongRows = OperandOrder::along_rows;
  const MatrixShape plain = GENERATE(MatrixShape{8, 16, 24}, MatrixShape{16, 8, 5});
  const Operands o(plain);
  std::vector<float> expected;
  for (const std::int32_t sum : o.product()) expected.push_back(static_cast<float>(sum) / 64);
  test::in_each_execution([&] {
    const test::Stream stream;
    MatrixProducts products(stream);
    const auto a = eighths(o.a), b = eighths(o.b);
    DeviceArray<__nv_bfloat16> a_along_k(a), a_along_rows(transposed(a, plain.m, plain.k)),
        b_along_rows(transposed(b, plain.n, plain.k));
    DeviceArray<float> y(expected.size());
    MatrixShape shape = plain;
    shape.b = kAlongRows;
    if (plain.k % 8 == 0) {
      REQUIRE(products.bf16(shape, a_along_k.data(), b_along_rows.data(), y.data(), false));
      CHECK(y.to_host() == expected);
    }
    shape.a = kAlongRows;
    REQUIRE(products.bf16(shape, a_along_rows.data(), b_along_rows.data(), y.data(), false));
    CHECK(y.to_host() == expected);
    shape.n = 12;  // lines that do not begin at 16 bytes
    CHECK(!products.bf16(shape, a_along_rows.data(), b_along_rows.data(), y.data(), false));
  });
}

TEST_CASE("Products that cuBLASLt has no algorithm for are refused and leave the result alone",
          "[emulator]") {
  emulator::reset();
  const test::Stream stream;
  MatrixProducts products(stream);
  DeviceArray<std::int8_t> a(std::vector<std::int8_t>(256, 1)), b(a.to_host());
  DeviceArray<std::int32_t> y(std::vector<std::int32_t>(64, 77));
  CHECK(!products.int8({4, 6, 16}, a.data(), b.data(), y.data()));
  CHECK(!products.int8({4, 8, 18}, a.data(), b.data(), y.data()));
  CHECK(!products.int8({4, 8, 18}, a.data(), b.data(), y.data()));  // as remembered
  CHECK(!products.int8({4, 8, 16}, a.data() + 8, b.data(), y.data()));
  CHECK(!products.int8({4, 8, 16}, a.data(), b.data() + 4, y.data()));
  CHECK(!products.int8({4, 8, 16}, a.data(), b.data(), y.data() + 1));
  CHECK(y.to_host() == std::vector<std::int32_t>(64, 77));
  CHECK(products.int8({4, 8, 16}, a.data(), b.data(), y.data()));
}

TEST_CASE("Without cuBLASLt every product is refused and the reason is known", "[emulator]") {
  emulator::reset();
  emulator::config().device.has_cublaslt = false;
  const test::Stream stream;
  MatrixProducts products(stream);
  DeviceArray<std::int8_t> a(256), b(256);
  DeviceArray<std::int32_t> y(64);
  CHECK(!products.int8({4, 8, 16}, a.data(), b.data(), y.data()));
  CHECK(products.unusable() == "cuBLASLt was not found");
}

TEST_CASE("cuBLASLt is not used when its workspace does not fit", "[emulator]") {
  emulator::reset();
  emulator::config().device.memory_bytes = 1 << 20;
  const test::Stream stream;
  MatrixProducts products(stream);
  CHECK(products.unusable() == "no device memory is left for cuBLASLt");
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(emulator::reset() == 0);
}

}  // namespace
}  // namespace bitnet::cuda
