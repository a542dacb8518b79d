// SPDX-License-Identifier: MIT
// Operands of bf16 products, plain and transposed, against loops that round one element at a time:
// equal bits, zeros in the padding, and nothing written beside it.
#include "cuda/to_bf16.h"

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
using Bits = std::vector<unsigned>;

constexpr unsigned kUntouched = 0x1234;

std::vector<float> random_floats(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> x;
  for (int i = 0; i < count; ++i) {
    x.push_back(static_cast<float>(static_cast<int>(random() % 200'001) - 100'000) * 1e-4f);
  }
  return x;
}

unsigned bits_of(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }

// A result of `lines` lines, `pitch` apart, with `room` in front of the first.
struct Result {
  int lines, elements, room, pitch;
  DeviceArray<__nv_bfloat16> memory;

  Result(int line_count, int line_elements, int columns_before)
      : lines(line_count),
        elements(line_elements),
        room(columns_before),
        pitch(room + static_cast<int>(bf16_padded(elements)) + room),
        memory(std::vector<__nv_bfloat16>(static_cast<std::size_t>(lines * pitch),
                                          __ushort_as_bfloat16(kUntouched))) {}
  Bf16Lines target() { return {memory.data() + room, pitch}; }
  Bits bits() const {
    Bits bits;
    for (const auto v : memory.to_host()) bits.push_back(__bfloat16_as_ushort(v));
    return bits;
  }
  template <typename Element>  // (line, index) -> float
  Bits expected(Element element) const {
    Bits bits(static_cast<std::size_t>(lines * pitch), kUntouched);
    for (int line = 0; line < lines; ++line) {
      for (int i = 0; i < bf16_padded(elements); ++i) {
        bits[static_cast<std::size_t>(line * pitch + room + i)] =
            i < elements ? bits_of(element(line, i)) : 0;
      }
    }
    return bits;
  }
};

struct Shape {
  int rows, columns;
};

std::vector<float> stored_as(const std::vector<float>& x, float) { return x; }
std::vector<__nv_bfloat16> stored_as(const std::vector<float>& x, __nv_bfloat16) {
  return test::to_bf16(x);
}

// From T, the numbers of which x are.
template <typename T>
void check_matrix(const std::vector<float>& x, Shape shape, int offset, int room) {
  const auto [rows, columns] = shape;
  const bool scaled = room != 0;
  const std::vector<float> row_scales = random_floats(rows, 2), scales{0.37f};
  const auto at = [&, columns = columns](int row, int column) {
    return x[static_cast<std::size_t>(offset + row * columns + column)];
  };
  const auto plain = [&](int row, int column) {
    return scaled ? scales[0] * at(row, column) : at(row, column);
  };
  const auto transposed = [&](int column, int row) {
    return scaled ? row_scales[static_cast<std::size_t>(row)] * at(row, column) : at(row, column);
  };
  test::in_each_execution([&, rows = rows, columns = columns] {
    const test::Stream stream;
    DeviceArray<T> from(stored_as(x, T{}));
    DeviceArray<float> row_scale(row_scales), scale(scales);
    RealsToBf16 op{from.data() + offset, rows, columns};
    if (scaled) op.scale = scale.data(), op.row_scale = row_scale.data();
    for (const bool both : {false, true}) {
      Result lines(rows, columns, room), turned(columns, rows, room);
      op.plain = lines.target();
      op.transposed = {};
      if (both) op.transposed = turned.target();
      REQUIRE(cuda_error(to_bf16(op, stream)) == "");
      if (!both) {
        op.plain = {};
        op.transposed = turned.target();
        REQUIRE(cuda_error(to_bf16(op, stream)) == "");
      }
      CHECK(lines.bits() == lines.expected(plain));
      CHECK(turned.bits() == turned.expected(transposed));
    }
  });
}

TEST_CASE("The reals of a matrix become bf16 in rows, in columns and in both at once") {
  const Shape shape = GENERATE(Shape{1, 1}, Shape{3, 5}, Shape{8, 64}, Shape{65, 68}, Shape{64, 66},
                               Shape{129, 12});
  const int offset = GENERATE(0, 1);  // of the matrix, in elements
  const int room = GENERATE(0, 8);
  const std::vector<float> x = random_floats(offset + shape.rows * shape.columns, 1);
  CAPTURE(shape.rows, shape.columns, offset, room);
  check_matrix<float>(x, shape, offset, room);
  check_matrix<__nv_bfloat16>(test::rounded_to_bf16(x), shape, offset, room);
}

TEST_CASE("The codes of activations become bf16 in columns, exactly") {
  const Shape shape = GENERATE(Shape{1, 4}, Shape{7, 64}, Shape{65, 68}, Shape{64, 132});
  std::mt19937 random(3);
  std::vector<std::int8_t> codes(static_cast<std::size_t>(shape.rows * shape.columns));
  for (auto& v : codes) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::int8_t> from(codes);
    Result turned(shape.columns, shape.rows, 0);
    const CodesToBf16 op{from.data(), shape.rows, shape.columns, turned.target()};
    REQUIRE(cuda_error(to_bf16(op, stream)) == "");
    CHECK(turned.bits() == turned.expected([&](int column, int row) {
      return static_cast<float>(codes[static_cast<std::size_t>(row * shape.columns + column)]);
    }));
  });
}

TEST_CASE("The packed weights become bf16 in columns, exactly or times the scale of their group") {
  const Shape shape = GENERATE(Shape{4, 4}, Shape{12, 64}, Shape{68, 72}, Shape{128, 128});
  const int groups = GENERATE(0, 1, 2);  // 0: no scales
  const int rows = shape.rows, columns = shape.columns;
  const int group_size = groups == 0 ? 0 : columns / groups;
  if (groups != 0 && group_size % 4 != 0) return;
  std::mt19937 random(4);
  std::vector<int> trits(static_cast<std::size_t>(rows * columns));
  std::vector<std::uint8_t> packed(trits.size() / 4);
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      const int trit = static_cast<int>(random() % 3) - 1;
      const int quarter = row / (rows / 4), packed_row = row % (rows / 4);
      trits[static_cast<std::size_t>(row * columns + column)] = trit;
      auto& byte = packed[static_cast<std::size_t>(packed_row * columns + column)];
      byte = static_cast<std::uint8_t>(byte | (trit + 1) << (2 * quarter));
    }
  }
  const std::vector<float> scales = random_floats(rows * (groups == 0 ? 1 : groups), 5);
  const auto element = [&](int column, int row) {
    const auto trit = static_cast<float>(trits[static_cast<std::size_t>(row * columns + column)]);
    if (groups == 0) return trit;
    return scales[static_cast<std::size_t>(row * groups + column / group_size)] * trit;
  };
  CAPTURE(rows, columns, groups);
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::uint8_t> from(packed);
    DeviceArray<float> scale(scales);
    Result turned(columns, rows, 8);
    const TernaryToBf16 op{from.data(), groups == 0 ? nullptr : scale.data(),
                           group_size,  rows,
                           columns,     turned.target()};
    REQUIRE(cuda_error(to_bf16(op, stream)) == "");
    CHECK(turned.bits() == turned.expected(element));
  });
}

TEST_CASE("The conversions to bf16 refuse lines that are too short or not aligned") {
  RealsToBf16 floats{nullptr, 4, 12};
  CHECK(to_bf16(floats, nullptr) == cudaErrorInvalidValue);  // nowhere to write
  alignas(16) __nv_bfloat16 somewhere[8];
  floats.plain = {somewhere, 8};
  CHECK(to_bf16(floats, nullptr) == cudaErrorInvalidValue);
  floats.plain = {somewhere, 20};
  CHECK(to_bf16(floats, nullptr) == cudaErrorInvalidValue);
  floats.plain = {};
  floats.transposed = {somewhere, 4};
  CHECK(to_bf16(floats, nullptr) == cudaErrorInvalidValue);
  CHECK(to_bf16(CodesToBf16{nullptr, 4, 6, {somewhere, 8}}, nullptr) == cudaErrorInvalidValue);
  CHECK(to_bf16(CodesToBf16{nullptr, 9, 8, {somewhere, 8}}, nullptr) == cudaErrorInvalidValue);
  CHECK(to_bf16(TernaryToBf16{nullptr, nullptr, 0, 6, 8, {somewhere, 8}}, nullptr) ==
        cudaErrorInvalidValue);
  const float scale = 1;
  CHECK(to_bf16(TernaryToBf16{nullptr, &scale, 6, 8, 12, {somewhere, 8}}, nullptr) ==
        cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
