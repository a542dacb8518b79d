// SPDX-License-Identifier: MIT
// Unpacked ternary weights, as they are and transposed, against loops over the bytes.
#include "cuda/unpack_codes.h"

#include <cstdint>
#include <deque>
#include <random>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;
using Codes = std::vector<std::int8_t>;

struct Shape {
  int quarter, depth;
};

TEST_CASE("The unpacked weights are the trits, in rows and, transposed, by packed bytes") {
  // Around the tiles of 32 packed rows by 128 columns, and a thread's 4 rows.
  const Shape shape = GENERATE(Shape{1, 16}, Shape{3, 64}, Shape{32, 128}, Shape{36, 64},
                               Shape{37, 192}, Shape{2, 4112}, Shape{67, 48});
  const auto [quarter, depth] = shape;
  CAPTURE(quarter, depth);
  std::mt19937 random(5);
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(quarter * depth));
  for (auto& byte : packed) {
    unsigned bits = 0;
    for (int q = 0; q < 4; ++q) bits |= random() % 3 << (2 * q);
    byte = static_cast<std::uint8_t>(bits);
  }
  const auto trit = [&](int r, int q, int k) {
    const int byte = packed[static_cast<std::size_t>(r * depth + k)];
    return static_cast<std::int8_t>((byte >> (2 * q) & 3) - 1);
  };
  const int width = padded_outputs(quarter);
  Codes rows, columns;
  for (int q = 0; q < 4; ++q) {
    for (int r = 0; r < quarter; ++r) {
      for (int k = 0; k < depth; ++k) rows.push_back(trit(r, q, k));
    }
  }
  for (int k = 0; k < depth; ++k) {
    for (int i = 0; i < width; ++i) {
      columns.push_back(i < 4 * quarter ? trit(i / 4, i % 4, k) : std::int8_t{0});
    }
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::uint8_t> from(packed);
    DeviceArray<std::int8_t> unpacked(rows.size()), transposed(columns.size());
    TransposedCodes op{1, depth, {from.data()}, {quarter}, transposed.data()};
    REQUIRE(cuda_error(unpack_codes(from.data(), quarter, depth, unpacked.data(), stream)) == "");
    REQUIRE(cuda_error(unpack_transposed(op, stream)) == "");
    CHECK(unpacked.to_host() == rows);
    CHECK(transposed.to_host() == columns);
  });
}

TEST_CASE("The transposed weights of several matrices are joined in a row, each padded") {
  const int depth = 144, quarters[] = {3, 40, 16};
  std::mt19937 random(6);
  std::vector<std::vector<std::uint8_t>> packed;
  int width = 0;
  for (const int quarter : quarters) {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(quarter * depth));
    for (auto& byte : bytes) {
      unsigned bits = 0;
      for (int q = 0; q < 4; ++q) bits |= random() % 3 << (2 * q);
      byte = static_cast<std::uint8_t>(bits);
    }
    packed.push_back(bytes);
    width += padded_outputs(quarter);
  }
  Codes expected;
  for (int k = 0; k < depth; ++k) {
    for (std::size_t m = 0; m < 3; ++m) {
      for (int i = 0; i < padded_outputs(quarters[m]); ++i) {
        const bool there = i < 4 * quarters[m];
        const int byte = there ? packed[m][static_cast<std::size_t>(i / 4 * depth + k)] : 0;
        expected.push_back(there ? static_cast<std::int8_t>((byte >> (2 * (i % 4)) & 3) - 1)
                                 : std::int8_t{0});
      }
    }
  }
  REQUIRE(expected.size() == static_cast<std::size_t>(width * depth));
  test::in_each_execution([&] {
    const test::Stream stream;
    std::deque<DeviceArray<std::uint8_t>> from;
    TransposedCodes op{3, depth, {}, {}, nullptr};
    for (std::size_t m = 0; m < 3; ++m) {
      from.emplace_back(packed[m]);
      op.packed[m] = from.back().data();
      op.quarter[m] = quarters[m];
    }
    DeviceArray<std::int8_t> transposed(expected.size());
    op.trits = transposed.data();
    REQUIRE(cuda_error(unpack_transposed(op, stream)) == "");
    CHECK(transposed.to_host() == expected);
  });
}

TEST_CASE("The unpacking refuses rows that are no whole vectors") {
  CHECK(unpack_codes(nullptr, 1, 24, nullptr, nullptr) == cudaErrorInvalidValue);
  TransposedCodes op{1, 64, {}, {0}, nullptr};
  CHECK(unpack_transposed(op, nullptr) == cudaErrorInvalidValue);
  op.quarter[0] = 1, op.matrices = kMostTransposed + 1;
  CHECK(unpack_transposed(op, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
