// SPDX-License-Identifier: MIT
// Packing, unpacking and counting of codes against plain loops: equal in every execution.
#include "cuda/packed_codes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/cuda_emulator/plain_sums.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;

using Bytes = std::vector<std::uint8_t>;

int code_of(WeightCode kind, float w, float constant) {
  if (kind == WeightCode::binary) return w - constant > 0.0f ? 1 : -1;
  const float scaled = w * (1.0f / constant);
  return (scaled > 0.5f) - (scaled < -0.5f);
}

Bytes expected_packed(WeightCode kind, const std::vector<float>& w, std::size_t group,
                      const std::vector<float>& constants) {
  Bytes packed(w.size() / 4);
  for (std::size_t k = 0; k < w.size(); ++k) {
    const int bits = code_of(kind, w[k], constants[k / group]) + 1;
    auto& byte = packed[k % packed.size()];
    byte = static_cast<std::uint8_t>(byte | bits << (2 * (k / packed.size())));
  }
  return packed;
}

int bits_of(const Bytes& packed, std::size_t k) {
  return packed[k % packed.size()] >> (2 * (k / packed.size())) & 3;
}

int expected_flips(const Bytes& a, const Bytes& b) {
  int flips = 0;
  for (std::size_t k = 0; k < 4 * a.size(); ++k) flips += bits_of(a, k) != bits_of(b, k) ? 1 : 0;
  return flips;
}

struct Packed {
  Bytes bytes;
  int flips;
  bool operator==(const Packed&) const = default;
};

// flips -1: not counted.
Packed pack(WeightCode kind, const std::vector<float>& w, std::size_t group,
            const std::vector<float>& constants, const Bytes& before, bool count_flips = true) {
  const test::Stream stream;
  DeviceArray<float> weights(w), factors(constants);
  DeviceArray<std::uint8_t> packed(before);
  DeviceArray<int> flips(std::vector<int>{-1});
  const PackWeights op{weights.data(),
                       static_cast<std::int64_t>(w.size()),
                       static_cast<std::int64_t>(group),
                       factors.data(),
                       packed.data(),
                       count_flips ? flips.data() : nullptr};
  REQUIRE(cuda_error(pack_weights(kind, std::span(&op, 1), stream)) == "");
  return {packed.to_host(), flips.to_host()[0]};
}

Bytes some_bytes(std::size_t count) {
  Bytes bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(i * 167 + i / 7);
  return bytes;
}

std::vector<float> constants_for(const std::vector<float>& w, std::size_t group) {
  std::vector<float> constants(w.size() / group);
  for (std::size_t g = 0; g < constants.size(); ++g) {
    constants[g] = 0.3f + 0.1f * static_cast<float>(g % 17);
  }
  return constants;
}

TEST_CASE("The packed weights have the codes and changes of the plain loops") {
  const WeightCode kind = GENERATE(WeightCode::ternary, WeightCode::binary);
  // 1024 bytes are a block; a group of 0 stands for all.
  const auto [count, group] = GENERATE(table<std::size_t, std::size_t>(
      {{16, 0}, {256, 0}, {256, 64}, {4096, 0}, {4112, 0}, {6144, 192}, {4608, 128}}));
  CAPTURE(count, group);
  const std::size_t of_constant = group == 0 ? count : group;
  const std::vector<float> w = test::plain_numbers(count, 8);
  const std::vector<float> constants = constants_for(w, of_constant);
  const Bytes before = some_bytes(count / 4);
  const Bytes packed = expected_packed(kind, w, of_constant, constants);
  const int flips = expected_flips(before, packed);
  test::in_each_execution([&] {
    CHECK(pack(kind, w, of_constant, constants, before) == Packed{packed, flips});
    CHECK(pack(kind, w, of_constant, constants, packed) == Packed{packed, 0});
    CHECK(pack(kind, w, of_constant, constants, before, false) == Packed{packed, -1});
  });
}

TEST_CASE("The packed weights of many matrices are those of each") {
  constexpr std::size_t kMatrices = 120;  // two launches
  const std::vector<float> w = test::plain_numbers(kMatrices * 64 + 8192, 9);
  struct Matrix {
    std::size_t first, count, group;
  };
  std::vector<Matrix> matrices = {{0, 8192, 8192}};  // two blocks
  while (matrices.size() < kMatrices)
    matrices.push_back({matrices.back().first + matrices.back().count, 64,
                        matrices.size() % 2 == 0 ? std::size_t{64} : std::size_t{16}});
  const Bytes before = some_bytes(w.size() / 4);
  DeviceArray<float> weights(w), constants(constants_for(w, 16));
  DeviceArray<std::uint8_t> packed(before);
  DeviceArray<int> flips(std::vector<int>(kMatrices, -1));
  std::vector<PackWeights> ops;
  std::vector<int> expected_changes;
  Bytes expected = before;
  for (const Matrix& m : matrices) {
    const std::size_t i = ops.size();
    ops.push_back({weights.data() + m.first, static_cast<std::int64_t>(m.count),
                   static_cast<std::int64_t>(m.group), constants.data() + i,
                   packed.data() + m.first / 4, i % 5 == 4 ? nullptr : flips.data() + i});
    const auto part = [&](const auto& x, std::size_t first, std::size_t count) {
      const auto from = x.begin() + static_cast<std::ptrdiff_t>(first);
      return std::remove_cvref_t<decltype(x)>(from, from + static_cast<std::ptrdiff_t>(count));
    };
    const Bytes of_matrix = expected_packed(WeightCode::ternary, part(w, m.first, m.count), m.group,
                                            part(constants_for(w, 16), i, m.count / m.group));
    expected_changes.push_back(
        i % 5 == 4 ? -1 : expected_flips(part(before, m.first / 4, m.count / 4), of_matrix));
    std::copy(of_matrix.begin(), of_matrix.end(),
              expected.begin() + static_cast<std::ptrdiff_t>(m.first / 4));
  }
  const test::Stream stream;
  REQUIRE(cuda_error(pack_weights(WeightCode::ternary, ops, stream)) == "");
  CHECK(packed.to_host() == expected);
  CHECK(flips.to_host() == expected_changes);
}

TEST_CASE("The codes of ties, zeros and numbers that are not finite are as defined") {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> w = {0.5f, -0.5f, 0.50001f,  -0.50001f,  0.0f,   -0.0f,
                                kNaN, 7.0f,  kInfinity, -kInfinity, 1e-40f, -1e30f,
                                2.0f, -2.0f, 1.0f,      -1.0f};
  for (const float constant : {1.0f, 0.0f, kInfinity, kNaN, 1e-5f}) {
    for (const WeightCode kind : {WeightCode::ternary, WeightCode::binary}) {
      CAPTURE(constant, int(kind));
      CHECK(pack(kind, w, 16, {constant}, Bytes(4)).bytes ==
            expected_packed(kind, w, 16, {constant}));
    }
  }
}

TEST_CASE("The unpacked weights are scale times code") {
  const auto [count, group] = GENERATE(
      table<std::size_t, std::size_t>({{16, 0}, {256, 64}, {4096, 0}, {4112, 0}, {6144, 192}}));
  CAPTURE(count, group);
  const std::size_t of_scale = group == 0 ? count : group;
  const Bytes packed = some_bytes(count / 4);
  const std::vector<float> scales = constants_for(std::vector<float>(count), of_scale);
  std::vector<float> expected(count);
  for (std::size_t k = 0; k < count; ++k) {
    expected[k] = scales[k / of_scale] * static_cast<float>(bits_of(packed, k) - 1);
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::uint8_t> bytes(packed);
    DeviceArray<float> factors(scales), w(count);
    const UnpackWeights op{bytes.data(), factors.data(), static_cast<std::int64_t>(count),
                           static_cast<std::int64_t>(of_scale), w.data()};
    REQUIRE(cuda_error(unpack_weights(op, stream)) == "");
    CHECK(w.to_host() == expected);
  });
}

TEST_CASE("The codes are counted in any number of bytes at any address") {
  const std::size_t bytes = GENERATE(0, 1, 15, 16, 17, 4095, 16384, 16400, 33333);
  const std::size_t offset = GENERATE(0, 1);
  CAPTURE(bytes, offset);
  const Bytes packed = some_bytes(bytes + offset);
  std::array<unsigned long long, 4> expected{};
  for (std::size_t i = offset; i < packed.size(); ++i) {
    for (int shift = 0; shift < 8; shift += 2) ++expected[packed[i] >> shift & 3];
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::uint8_t> array(packed);
    DeviceArray<PackedCounts> counts(1);
    REQUIRE(cuda_error(count_packed(array.data() + offset, static_cast<std::int64_t>(bytes),
                                    counts.data(), stream)) == "");
    const PackedCounts found = counts.to_host()[0];
    CHECK(found.zero == expected[1]);
    CHECK(found.plus == expected[2]);
    CHECK(found.invalid == expected[3]);
  });
}

TEST_CASE("The packing and unpacking refuse sizes that do not fit") {
  const auto refused = [](std::int64_t elements, std::int64_t group) {
    const PackWeights op{nullptr, elements, group, nullptr, nullptr, nullptr};
    const bool packs =
        pack_weights(WeightCode::ternary, std::span(&op, 1), nullptr) != cudaErrorInvalidValue;
    const bool unpacks = unpack_weights({nullptr, nullptr, elements, group, nullptr}, nullptr) !=
                         cudaErrorInvalidValue;
    return !packs && !unpacks;
  };
  CHECK(refused(0, 0));
  CHECK(refused(24, 24));
  CHECK(refused(256, 0));
  CHECK(refused(256, 128));  // across quarters
  CHECK(refused(256, 2));
  CHECK(refused(std::int64_t{1} << 32, 64));
  CHECK(count_packed(nullptr, -1, nullptr, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
