// SPDX-License-Identifier: MIT
// The mixture of weights and quantised weights against a plain loop: equal bits in every execution.
#include "cuda/blend.h"

#include <cstdint>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/cuda_emulator/plain_sums.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;

TEST_CASE("The blend has the bits of the plain loop, in place and at any address") {
  const std::size_t count = GENERATE(1, 3, 4, 1024, 1025);  // 1024 of a block
  const std::size_t offset = GENERATE(0, 1);
  CAPTURE(count, offset);
  const std::vector<float> x = test::plain_numbers(count + offset, 1),
                           quantized = test::plain_numbers(count + offset, 2);
  std::vector<float> expected = quantized;
  for (std::size_t k = offset; k < x.size(); ++k) {
    expected[k] = x[k] + 0.3f * (quantized[k] - x[k]);
  }
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<float> a(x), b(quantized);
    const Blend op{a.data() + offset, b.data() + offset, 0.3f, b.data() + offset,
                   static_cast<std::int64_t>(count)};
    REQUIRE(cuda_error(blend(op, stream)) == "");
    CHECK(b.to_host() == expected);
    CHECK(a.to_host() == x);
  });
}

TEST_CASE("The blend of nothing is refused") {
  CHECK(blend(Blend{}, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
