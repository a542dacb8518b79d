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

// Of matrices that lie one behind the other: the statistics of each.
std::vector<Statistics> run_all(const std::vector<float>& w,
                                const std::vector<std::size_t>& sizes) {
  const test::Stream stream;
  DeviceArray<float> weights(w), results(2 * sizes.size());
  std::vector<Statistics> all(sizes.size());
  for (const WeightStatistic which : {WeightStatistic::scale, WeightStatistic::mean}) {
    const bool scale = which == WeightStatistic::scale;
    std::vector<WholeStatistic> matrices;
    std::vector<TensorToSum> to_sum;
    std::size_t first = 0;
    for (const std::size_t size : sizes) {
      to_sum.push_back({weights.data() + first, static_cast<std::int64_t>(size)});
      matrices.push_back({to_sum.back(), results.data() + matrices.size()});
      first += size;
    }
    DeviceArray<double> tiles(static_cast<std::size_t>(tensor_sum_tiles(to_sum)));
    REQUIRE(cuda_error(whole_statistics(which, matrices, tiles.data(), stream)) == "");
    for (std::size_t i = 0; i < sizes.size(); ++i)
      (scale ? all[i].scales : all[i].means).push_back(results.to_host()[i]);
  }
  return all;
}

Statistics run_groups(const std::vector<float>& w, std::size_t group) {
  const test::Stream stream;
  DeviceArray<float> weights(w), results(w.size() / group);
  const auto of = [&](WeightStatistic which) {
    const GroupStatistics op{weights.data(), static_cast<std::int64_t>(w.size()),
                             static_cast<std::int64_t>(group), results.data()};
    REQUIRE(cuda_error(group_statistics(which, op, stream)) == "");
    return results.to_host();
  };
  return {of(WeightStatistic::scale), of(WeightStatistic::mean)};
}

TEST_CASE("The scale and mean of all weights have the bits of the plain loops") {
  const std::size_t count = GENERATE(1, 64, 256, 4096, 4160, 32768, 33024);  // a tile, 8 tiles
  CAPTURE(count);
  const std::vector<float> w = test::plain_numbers(count, 2);
  const Statistics expected = expected_statistics(w, count);
  test::in_each_execution([&] { CHECK(run_all(w, {count}) == std::vector{expected}); });
}

TEST_CASE("The scales and means of many matrices are those of each") {
  std::vector<std::size_t> sizes = {4096 * 130 + 7, 4096, 1};  // 128 tile sums are staged at once
  while (sizes.size() < 260) sizes.push_back(3 + sizes.size() % 40);  // three launches
  std::size_t count = 0;
  for (const std::size_t size : sizes) count += size;
  const std::vector<float> w = test::plain_numbers(count, 5);
  std::vector<Statistics> expected;
  std::size_t first = 0;
  for (const std::size_t size : sizes) {
    const auto from = w.begin() + static_cast<std::ptrdiff_t>(first);
    expected.push_back(expected_statistics({from, from + static_cast<std::ptrdiff_t>(size)}, size));
    first += size;
  }
  CHECK(run_all(w, sizes) == expected);
}

TEST_CASE("The scales and means of groups have the bits of the plain loops") {
  const std::size_t group = GENERATE(64, 192, 512, 576, 4096, 4160);  // a piece, a tile
  const std::size_t groups = GENERATE(2, 8, 9);                       // the 8 groups of a block
  CAPTURE(group, groups);
  const std::vector<float> w = test::plain_numbers(group * groups, 3);
  const Statistics expected = expected_statistics(w, group);
  test::in_each_execution([&] { CHECK(run_groups(w, group) == expected); });
}

TEST_CASE("The scale of weights that are zero has its lower bound") {
  CHECK(run_all(std::vector<float>(256), {256})[0] == Statistics{{1e-5f}, {0.0f}});
  CHECK(run_groups(std::vector<float>(128), 64) == Statistics{{1e-5f, 1e-5f}, {0.0f, 0.0f}});
}

TEST_CASE("The scale and mean of weights show what is not finite") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> w = test::plain_numbers(256, 4);
  w[3] = -kInfinity;
  w[70] = std::numeric_limits<float>::quiet_NaN();
  const Statistics groups = run_groups(w, 64), all = run_all(w, {256})[0];
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
  const auto refused = [&](std::int64_t elements, std::int64_t group) {
    return group_statistics(WeightStatistic::scale, {&x, elements, group, &x}, nullptr) ==
           cudaErrorInvalidValue;
  };
  CHECK(refused(0, 4));
  CHECK(refused(256, 0));
  CHECK(refused(256, 60));
  CHECK(refused(252, 63));
  CHECK(refused(std::int64_t{1} << 32, 64));
  const WholeStatistic none{{&x, 0}, &x};
  CHECK(whole_statistics(WeightStatistic::mean, std::span(&none, 1), nullptr, nullptr) ==
        cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
