// SPDX-License-Identifier: MIT
// The absmedian scale against sorted magnitudes: exact in every execution.
#include "cuda/magnitude_median.h"

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

std::vector<float> expected_scales(const std::vector<float>& w, std::size_t group) {
  std::vector<float> scales;
  for (std::size_t first = 0; first < w.size(); first += group) {
    std::vector<float> magnitudes;
    for (std::size_t k = 0; k < group; ++k) magnitudes.push_back(std::fabs(w[first + k]));
    std::sort(magnitudes.begin(), magnitudes.end());
    const float median = magnitudes[(group - 1) / 2];
    scales.push_back(median < 1e-5f ? 1e-5f : median);
  }
  return scales;
}

std::vector<float> run(const std::vector<float>& w, std::size_t group) {
  const test::Stream stream;
  DeviceArray<float> weights(w), scales(w.size() / group);
  DeviceArray<std::uint32_t> counts(static_cast<std::size_t>(kMedianCounts));
  const MagnitudeMedian op{weights.data(), static_cast<std::int64_t>(w.size()),
                           static_cast<std::int64_t>(group), scales.data(), counts.data()};
  REQUIRE(cuda_error(magnitude_median(op, stream)) == "");
  return scales.to_host();
}

// Numbers of one exponent: only the lowest digit tells them apart.
std::vector<float> close_numbers(std::size_t count) {
  std::vector<float> w(count);
  for (std::size_t k = 0; k < count; ++k) {
    w[k] = (k % 2 == 0 ? 1.0f : -1.0f) * (1.0f + static_cast<float>(k * 7919 % 509) * 0x1p-23f);
  }
  return w;
}

TEST_CASE("The median of all magnitudes is exact") {
  const std::size_t count = GENERATE(4, 64, 256, 16384, 16640);  // 16384 of a block
  CAPTURE(count);
  for (const auto& w : {test::plain_numbers(count, 5), close_numbers(count)}) {
    const std::vector<float> expected = expected_scales(w, count);
    test::in_each_execution([&] { CHECK(run(w, count) == expected); });
  }
}

TEST_CASE("The medians of the magnitudes of groups are exact") {
  const std::size_t group = GENERATE(64, 192, 4160);
  const std::size_t groups = GENERATE(2, 4, 5);  // 4 of a block
  CAPTURE(group, groups);
  for (const auto& w : {test::plain_numbers(group * groups, 6), close_numbers(group * groups)}) {
    const std::vector<float> expected = expected_scales(w, group);
    test::in_each_execution([&] { CHECK(run(w, group) == expected); });
  }
}

TEST_CASE("The median of magnitudes is the lower of the two in the middle, and has a lower bound") {
  std::vector<float> w(64, 3.0f);
  std::fill_n(w.begin(), 32, -2.0f);
  CHECK(run(w, 64) == std::vector<float>{2.0f});
  w[0] = 3.0f;
  CHECK(run(w, 64) == std::vector<float>{3.0f});
  w.assign(128, 0.0f);
  CHECK(run(w, 128) == std::vector<float>{1e-5f});
  CHECK(run(w, 64) == std::vector<float>{1e-5f, 1e-5f});
  w.assign(128, 1e-40f);  // not a normal number
  w.insert(w.end(), 128, -std::numeric_limits<float>::max());
  CHECK(run(w, 128) == std::vector<float>{1e-5f, std::numeric_limits<float>::max()});
}

TEST_CASE("The median of magnitudes shows what is not finite") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> w = test::plain_numbers(256, 7);
  w[3] = -kInfinity;
  CHECK(run(w, 256) == std::vector<float>{kInfinity});
  w[255] = -std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(run(w, 256)[0]));
  const std::vector<float> groups = run(w, 64);
  CHECK(groups[0] == kInfinity);
  CHECK(std::isfinite(groups[1]));
  CHECK(std::isnan(groups[3]));
}

TEST_CASE("The median of magnitudes refuses sizes that do not fit") {
  const auto refused = [](std::int64_t elements, std::int64_t group) {
    return magnitude_median({nullptr, elements, group, nullptr, nullptr}, nullptr) ==
           cudaErrorInvalidValue;
  };
  CHECK(refused(0, 1));
  CHECK(refused(6, 6));
  CHECK(refused(256, 0));
  CHECK(refused(256, 60));
  CHECK(refused(std::int64_t{1} << 32, 64));
}

}  // namespace
}  // namespace bitnet::cuda
