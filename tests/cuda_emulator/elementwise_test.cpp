// SPDX-License-Identifier: MIT
// Sums and conversions, with the bits that fp32 addition and the formats demand.
#include "cuda/elementwise.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> counted(std::size_t count, float step) {
  std::vector<float> x(count);
  for (std::size_t i = 0; i < count; ++i) x[i] = step * static_cast<float>(i + 1);
  return x;
}

TEST_CASE("The sum of two arrays is that of their elements, in place too") {
  const std::size_t count = GENERATE(1u, 3u, 4u, 1023u, 1024u, 1025u);  // 1024 of a block
  const std::vector<float> a = counted(count, 0.37f), b = counted(count, -1.1f);
  std::vector<float> expected(count);
  for (std::size_t i = 0; i < count; ++i) expected[i] = a[i] + b[i];
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> left(a), right(b), y(count);
    const auto n = static_cast<std::int64_t>(count);
    REQUIRE(cuda_error(add({left.data(), right.data(), y.data(), n}, stream)) == "");
    REQUIRE(cuda_error(add({left.data(), right.data(), left.data(), n}, stream)) == "");
    CHECK(y.to_host() == expected);
    CHECK(left.to_host() == expected);
  });
}

TEST_CASE("The sum of two arrays takes rows that are not aligned") {
  const std::vector<float> a = counted(10, 1.0f);
  std::vector<float> expected = a;
  for (std::size_t i = 1; i < 10; ++i) expected[i] = a[i] + a[i - 1];
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> x(a), y(a);
    REQUIRE(cuda_error(add({x.data() + 1, x.data(), y.data() + 1, 9}, stream)) == "");
    CHECK(y.to_host() == expected);
  });
}

// fp16 by its definition.
float value_of_half(std::uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const float sign = (half & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction == 0 ? sign * kInfinity : NAN;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
}

bool same(float a, float b) {
  return std::isnan(a) ? std::isnan(b)
                       : std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

template <typename From>
std::vector<float> widened(const std::vector<std::uint16_t>& bits) {
  std::vector<From> values(bits.size());
  for (std::size_t i = 0; i < bits.size(); ++i) values[i] = std::bit_cast<From>(bits[i]);
  const test::Stream stream;
  DeviceArray<From> x(values);
  DeviceArray<float> y(bits.size());
  const Convert<From, float> op{x.data(), y.data(), static_cast<std::int64_t>(bits.size())};
  REQUIRE(cuda_error(convert(op, stream)) == "");
  return y.to_host();
}

std::vector<std::uint16_t> narrowed(const std::vector<float>& values) {
  const test::Stream stream;
  DeviceArray<float> x(values);
  DeviceArray<__half> y(values.size());
  const Convert<float, __half> op{x.data(), y.data(), static_cast<std::int64_t>(values.size())};
  REQUIRE(cuda_error(convert(op, stream)) == "");
  std::vector<std::uint16_t> bits;
  for (const __half half : y.to_host()) bits.push_back(std::bit_cast<std::uint16_t>(half));
  return bits;
}

TEST_CASE("The conversions of all 16-bit numbers to fp32 are exact, and fp16 comes back") {
  std::vector<std::uint16_t> all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  const std::vector<float> halves = widened<__half>(all), brains = widened<__nv_bfloat16>(all);
  const std::vector<std::uint16_t> back = narrowed(halves);
  int wrong = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    wrong += !same(halves[i], value_of_half(all[i]));
    wrong += !same(brains[i], std::bit_cast<float>(static_cast<std::uint32_t>(i) << 16));
    wrong += std::isnan(halves[i]) ? (back[i] & 0x7fff) <= 0x7c00 : back[i] != all[i];
  }
  CHECK(wrong == 0);
}

TEST_CASE("The conversion to fp16 rounds to the nearest, ties to even, and beyond to infinity") {
  std::vector<float> x;
  std::vector<std::uint16_t> expected;
  for (std::uint32_t half = 0; half < 0x7c00; half += 7) {  // between it and the next number
    const float low = value_of_half(static_cast<std::uint16_t>(half));
    const float high =
        half == 0x7bff ? 65536.0f : value_of_half(static_cast<std::uint16_t>(half + 1));
    const float tie = low + (high - low) / 2;
    const std::uint32_t even = half % 2 == 0 ? half : half + 1;
    for (const std::uint32_t sign : {0u, 0x8000u}) {
      const float direction = sign == 0 ? 1.0f : -1.0f;
      for (const float v : {std::nextafter(tie, 0.0f), tie, std::nextafter(tie, kInfinity)}) {
        x.push_back(direction * v);
        const std::uint32_t nearest = v < tie ? half : v > tie ? half + 1 : even;
        expected.push_back(static_cast<std::uint16_t>(nearest | sign));
      }
    }
  }
  x.insert(x.end(), {65519.996f, 65520.0f, -1e38f, kInfinity, 1e-30f, -1e-30f});
  expected.insert(expected.end(), {0x7bff, 0x7c00, 0xfc00, 0x7c00, 0x0000, 0x8000});
  CHECK(narrowed(x) == expected);
}

TEST_CASE("The conversions take rows that are not aligned") {
  const std::vector<float> a = counted(10, 0.25f);
  std::vector<float> expected(10, 9.0f);
  std::copy(a.begin() + 1, a.end(), expected.begin() + 1);
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> x(a), y(std::vector<float>(10, 9.0f));
    DeviceArray<__half> half(std::vector<__half>(10, __float2half_rn(0.0f)));
    const Convert<float, __half> narrow{x.data() + 1, half.data() + 1, 9};
    const Convert<__half, float> widen{half.data() + 1, y.data() + 1, 9};
    REQUIRE(cuda_error(convert(narrow, stream)) == "");
    REQUIRE(cuda_error(convert(widen, stream)) == "");
    CHECK(y.to_host() == expected);  // multiples of 1/4
  });
}

TEST_CASE("The conversion and the sum refuse no elements") {
  CHECK(add({nullptr, nullptr, nullptr, 0}, nullptr) == cudaErrorInvalidValue);
  CHECK(convert(Convert<float, __half>{nullptr, nullptr, 0}, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
