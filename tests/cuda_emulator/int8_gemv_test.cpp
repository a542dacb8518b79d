// SPDX-License-Identifier: MIT
// The int8 product for a few tokens against the sum written out: equal bits in every execution.
#include "cuda/int8_gemv.h"

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

TEST_CASE("The int8 product for few tokens has the bits of the sum written out") {
  const int tokens = GENERATE(1, 2, 3, 8, 11);  // the last: more than a block's
  const int columns = GENERATE(1, 6);
  const int depth = GENERATE(1, 37, 16, 528);  // read one by one, and by vectors
  CAPTURE(tokens, columns, depth);
  std::mt19937 random(3);
  const auto codes = [&](int count) {
    std::vector<std::int8_t> x(static_cast<std::size_t>(count));
    for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
    return x;
  };
  const auto scales = [&](int count) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> x(static_cast<std::size_t>(count));
    for (auto& v : x) v = uniform(random);
    return x;
  };
  const auto x = codes(tokens * depth), w = codes(columns * depth);
  const auto act_scale = scales(tokens), row_scale = scales(columns);
  std::vector<float> expected;
  for (int t = 0; t < tokens; ++t) {
    for (int n = 0; n < columns; ++n) {
      int sum = 0;
      for (int k = 0; k < depth; ++k) {
        sum +=
            x[static_cast<std::size_t>(t * depth + k)] * w[static_cast<std::size_t>(n * depth + k)];
      }
      expected.push_back(act_scale[static_cast<std::size_t>(t)] *
                         row_scale[static_cast<std::size_t>(n)] * static_cast<float>(sum));
    }
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::int8_t> device_x(x), device_w(w);
    DeviceArray<float> device_act_scale(act_scale), device_row_scale(row_scale);
    DeviceArray<float> y(expected.size());
    const Int8Gemv gemv{device_x.data(), device_act_scale.data(),
                        device_w.data(), device_row_scale.data(),
                        y.data(),        tokens,
                        columns,         depth};
    REQUIRE(cuda_error(int8_gemv(gemv, stream)) == "");
    CHECK(y.to_host() == expected);
  });
}

TEST_CASE("The int8 product for few tokens refuses what its sums cannot hold") {
  Int8Gemv p{};
  p.tokens = p.columns = 1;
  p.depth = (1 << 16) + 1;
  CHECK(int8_gemv(p, nullptr) == cudaErrorInvalidValue);
  p.depth = 16, p.tokens = 0;
  CHECK(int8_gemv(p, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
