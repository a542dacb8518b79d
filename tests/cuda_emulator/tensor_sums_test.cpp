// SPDX-License-Identifier: MIT
// Sums over tensors against plain loops in the order of core/quant/ternary.h: equal bits in every
// execution.
#include "cuda/tensor_sums.h"

#include <algorithm>
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

std::vector<double> expected_sums(SumTerm term, const std::vector<float>& x,
                                  const std::vector<std::int64_t>& sizes) {
  std::vector<double> sums;
  std::size_t first = 0;
  for (const std::int64_t size : sizes) {
    const auto count = static_cast<std::size_t>(size);
    sums.push_back(test::plain_sum(x.data() + first, count, [&](double v) {
      return term == SumTerm::square ? v * v : term == SumTerm::magnitude ? std::fabs(v) : v;
    }));
    first += count;
  }
  return sums;
}

// The tensors lie one behind the other, so that most are aligned to 4 bytes only.
std::vector<double> run(SumTerm term, const std::vector<float>& x,
                        const std::vector<std::int64_t>& sizes) {
  const test::Stream stream;
  DeviceArray<float> values(x);
  DeviceArray<double> sums(sizes.size());
  std::vector<TensorToSum> tensors;
  const float* next = values.data();
  for (const std::int64_t size : sizes) {
    tensors.push_back({next, size});
    next += size;
  }
  DeviceArray<double> tiles(
      std::max<std::size_t>(static_cast<std::size_t>(tensor_sum_tiles(tensors)), 1));
  REQUIRE(cuda_error(tensor_sums(term, tensors, tiles.data(), sums.data(), stream)) == "");
  return sums.to_host();
}

std::vector<float> values_for(const std::vector<std::int64_t>& sizes) {
  std::size_t count = 0;
  for (const std::int64_t size : sizes) count += static_cast<std::size_t>(size);
  return test::plain_numbers(count, 1);
}

TEST_CASE("The sums of tensors have the bits of the plain loops") {
  const SumTerm term = GENERATE(SumTerm::value, SumTerm::magnitude, SumTerm::square);
  // Around a step of the lanes (256), a tile, and the 2 tiles of a block; none at all, and after it.
  const std::vector<std::int64_t> sizes = {1,    0,    255,   256,   257,  4095,
                                           4096, 4097, 32768, 32769, 8000, 0};
  const std::vector<float> x = values_for(sizes);
  const std::vector<double> expected = expected_sums(term, x, sizes);
  test::in_each_execution([&] { CHECK(run(term, x, sizes) == expected); });
}

TEST_CASE("The sum of a tensor with more tiles than are staged at once keeps their order") {
  const std::vector<std::int64_t> sizes = {128 * 4096 + 17};  // 128 tiles are staged
  const std::vector<float> x = values_for(sizes);
  const std::vector<double> expected = expected_sums(SumTerm::value, x, sizes);
  test::in_each_execution([&] { CHECK(run(SumTerm::value, x, sizes) == expected); });
}

TEST_CASE("The sums of more tensors than a launch takes") {
  std::vector<std::int64_t> sizes;
  for (std::int64_t i = 0; i < 450; ++i) sizes.push_back(i * 37 % 300);
  const std::vector<float> x = values_for(sizes);
  const std::vector<double> expected = expected_sums(SumTerm::square, x, sizes);
  test::in_each_execution([&] { CHECK(run(SumTerm::square, x, sizes) == expected); });
}

TEST_CASE("The sums of tensors that are all empty are zero") {
  CHECK(run(SumTerm::square, {1.0f}, {0, 0}) == std::vector<double>{0, 0});
}

TEST_CASE("The sums of tensors show what is not finite, each in its own sum") {
  const std::vector<std::int64_t> sizes = {5000, 5000, 5000};
  std::vector<float> x = values_for(sizes);
  x[4999] = std::numeric_limits<float>::quiet_NaN();
  x[5001] = -std::numeric_limits<float>::infinity();
  const std::vector<double> sums = run(SumTerm::value, x, sizes);
  CHECK(std::isnan(sums[0]));
  CHECK(sums[1] == -std::numeric_limits<double>::infinity());
  CHECK(std::isfinite(sums[2]));
}

TEST_CASE("The sums of no tensors need no launch") {
  CHECK(tensor_sums(SumTerm::value, {}, nullptr, nullptr, nullptr) == cudaSuccess);
}

}  // namespace
}  // namespace bitnet::cuda
