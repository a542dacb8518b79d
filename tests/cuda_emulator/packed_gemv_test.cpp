// SPDX-License-Identifier: MIT
// The product with packed weights against the sum over unpacked ones: equal bits in every
// execution.
#include "cuda/packed_gemv.h"

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

TEST_CASE("The packed product has the bits of the sum over unpacked weights") {
  const int tokens = GENERATE(1, 2, 3, 4);
  const int columns = GENERATE(4, 36);
  const int depth = GENERATE(64, 1040);  // one lane's part of a row, and more than 32 lanes' worth
  CAPTURE(tokens, columns, depth);
  std::mt19937 random(7);
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(columns / 4 * depth));
  for (auto& byte : packed) {
    unsigned bits = 0;
    for (int i = 0; i < 4; ++i) bits |= random() % 3 << (2 * i);
    byte = static_cast<std::uint8_t>(bits);
  }
  std::vector<std::int8_t> codes(static_cast<std::size_t>(tokens * depth));
  for (auto& c : codes) c = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
  const std::vector<float> act_scale{0.5f, 0.3f, 0.1f, 0.7f};
  const float weight_scale = 0.9f;

  std::vector<float> expected;
  for (int t = 0; t < tokens; ++t) {
    for (int n = 0; n < columns; ++n) {
      const int row = n % (columns / 4), shift = 2 * (n / (columns / 4));
      std::int32_t sum = 0;
      for (int k = 0; k < depth; ++k) {
        const int trit = (packed[static_cast<std::size_t>(row * depth + k)] >> shift & 3) - 1;
        sum += trit * codes[static_cast<std::size_t>(t * depth + k)];
      }
      expected.push_back(act_scale[static_cast<std::size_t>(t)] * weight_scale *
                         static_cast<float>(sum));
    }
  }

  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::int8_t> x(codes);
    DeviceArray<std::uint8_t> w(packed);
    DeviceArray<float> scales(act_scale), scale(std::vector<float>{weight_scale});
    DeviceArray<float> y(expected.size());
    const PackedGemv product{x.data(), scales.data(), w.data(), scale.data(),
                             y.data(), tokens,        columns,  depth};
    REQUIRE(cuda_error(packed_gemv(product, stream)) == "");
    CHECK(y.to_host() == expected);
  });
}

TEST_CASE("The packed product refuses shapes that it has no kernel for") {
  PackedGemv p{nullptr, nullptr, nullptr, nullptr, nullptr, 5, 16, 64};
  CHECK(packed_gemv(p, nullptr) == cudaErrorInvalidValue);
  p.tokens = 1, p.depth = 24;
  CHECK(packed_gemv(p, nullptr) == cudaErrorInvalidValue);
  p.depth = 64, p.columns = 6;
  CHECK(packed_gemv(p, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
