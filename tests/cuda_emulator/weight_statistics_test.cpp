// SPDX-License-Identifier: MIT
// Scales and means of weights against plain loops: equal bits in every execution.
#include "cuda/weight_statistics.h"

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

struct Statistics {
  std::vector<float> scales, means;
  bool operator==(const Statistics&) const = default;
};

Statistics expected_statistics(const std::vector<float>& w, std::size_t group) {
  Statistics s;
  const auto count = static_cast<double>(group);
  for (std::size_t first = 0; first < w.size(); first += group) {
    const auto scale = static_cast<float>(
        test::plain_sum(&w[first], group, [](double v) { return std::fabs(v); }) / count);
    s.scales.push_back(scale < 1e-5f ? 1e-5f : scale);
    s.means.push_back(
        static_cast<float>(test::plain_sum(&w[first], group, [](double v) { return v; }) / count));
  }
  return s;
}

Statistics run(const std::vector<float>& w, std::size_t group, bool scales = true,
               bool means = true) {
  const test::Stream stream;
  const std::size_t groups = w.size() / group;
  const auto elements = static_cast<std::int64_t>(w.size());
  const auto group_size = static_cast<std::int64_t>(group);
  DeviceArray<float> weights(w), scale(groups), mean(groups);
  const auto tiles = static_cast<std::size_t>(statistics_tiles(elements, group_size));
  DeviceArray<double> tile_sums(std::max<std::size_t>(tiles, 1));
  const WeightStatistics op{weights.data(),
                            elements,
                            group_size,
                            scales ? scale.data() : nullptr,
                            means ? mean.data() : nullptr,
                            tile_sums.data()};
  REQUIRE(cuda_error(weight_statistics(op, stream)) == "");
  Statistics s;
  if (scales) s.scales = scale.to_host();
  if (means) s.means = mean.to_host();
  return s;
}

TEST_CASE("The scale and mean of all weights have the bits of the plain loops") {
  const std::size_t count = GENERATE(1, 64, 256, 4096, 4160, 32768, 33024);  // a tile, 8 tiles
  CAPTURE(count);
  const std::vector<float> w = test::plain_numbers(count, 2);
  const Statistics expected = expected_statistics(w, count);
  test::in_each_execution([&] {
    CHECK(run(w, count) == expected);
    CHECK(run(w, count, true, false).scales == expected.scales);
    CHECK(run(w, count, false, true).means == expected.means);
  });
}

TEST_CASE("The scales and means of groups have the bits of the plain loops") {
  const std::size_t group = GENERATE(64, 192, 320, 4096, 4160);
  const std::size_t groups = GENERATE(2, 8, 9);  // the 8 groups of a block
  CAPTURE(group, groups);
  const std::vector<float> w = test::plain_numbers(group * groups, 3);
  const Statistics expected = expected_statistics(w, group);
  test::in_each_execution([&] {
    CHECK(run(w, group) == expected);
    CHECK(run(w, group, true, false).scales == expected.scales);
    CHECK(run(w, group, false, true).means == expected.means);
  });
}

TEST_CASE("The scale of weights that are zero has its lower bound") {
  CHECK(run(std::vector<float>(256), 256) == Statistics{{1e-5f}, {0.0f}});
  CHECK(run(std::vector<float>(128), 64) == Statistics{{1e-5f, 1e-5f}, {0.0f, 0.0f}});
}

TEST_CASE("The scale and mean of weights show what is not finite") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> w = test::plain_numbers(256, 4);
  w[3] = -kInfinity;
  w[70] = std::numeric_limits<float>::quiet_NaN();
  const Statistics groups = run(w, 64), all = run(w, 256);
  CHECK(groups.scales[0] == kInfinity);
  CHECK(groups.means[0] == -kInfinity);
  CHECK(std::isnan(groups.scales[1]));
  CHECK(std::isnan(groups.means[1]));
  CHECK(std::isfinite(groups.scales[2]));
  CHECK(std::isnan(all.scales[0]));
  CHECK(std::isnan(all.means[0]));
}

TEST_CASE("The statistics of weights refuse sizes that do not fit") {
  float x = 0;
  const auto refused = [&](std::int64_t elements, std::int64_t group, float* scales) {
    return weight_statistics({&x, elements, group, scales, nullptr, nullptr}, nullptr) ==
           cudaErrorInvalidValue;
  };
  CHECK(refused(0, 1, &x));
  CHECK(refused(256, 0, &x));
  CHECK(refused(256, 60, &x));
  CHECK(refused(256, 64, nullptr));
  CHECK(refused(std::int64_t{1} << 32, 64, &x));
}

}  // namespace
}  // namespace bitnet::cuda
