// SPDX-License-Identifier: MIT
// Cross-entropy against the formula in double, within a derived bound, and the same bits in every
// execution, for every place of a row.
#include "cuda/cross_entropy.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;

constexpr double kRounding = 0x1p-24;
constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNaN = NAN;
constexpr float kScale = 0.125f;

enum class Gradient { none, apart, in_place };

struct Result {
  std::vector<std::uint32_t> loss, dlogits;  // bits: comparable where they are NaN
  bool operator==(const Result&) const = default;
  float loss_of(std::size_t row) const { return std::bit_cast<float>(loss[row]); }
  float dlogit(std::size_t i) const { return std::bit_cast<float>(dlogits[i]); }
};

std::vector<std::uint32_t> bits_of(const std::vector<float>& x) {
  std::vector<std::uint32_t> bits;
  for (const float v : x) bits.push_back(std::bit_cast<std::uint32_t>(v));
  return bits;
}

Result run(const std::vector<float>& logits, const std::vector<std::int32_t>& targets,
           Gradient gradient = Gradient::apart) {
  const test::Stream stream;
  DeviceArray<float> x(logits), dlogits(logits.size()), loss(targets.size());
  DeviceArray<std::int32_t> ids(targets);
  const int rows = static_cast<int>(targets.size());
  const CrossEntropy op{x.data(),
                        ids.data(),
                        loss.data(),
                        kScale,
                        gradient == Gradient::none       ? nullptr
                        : gradient == Gradient::in_place ? x.data()
                                                         : dlogits.data(),
                        rows,
                        static_cast<int>(logits.size()) / rows};
  REQUIRE(cuda_error(cross_entropy(op, stream)) == "");
  Result r{bits_of(loss.to_host()), {}};
  if (gradient == Gradient::apart) r.dlogits = bits_of(dlogits.to_host());
  if (gradient == Gradient::in_place) r.dlogits = bits_of(x.to_host());
  return r;
}

std::vector<float> random_logits(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(1.0f, 6.0f);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& v : x) v = normal(random);
  return x;
}

// With D the range of a row, c the chunks that a thread adds up (32 threads up to 1024 logits, else
// 256) and 13 merges at most: a term's arguments of exp, which only grow towards the peak, are
// rounded by D at most; each of c + 14 exp and products adds 5 roundings, each addition 1.
void check_row(const float* logits, int n, int target, float loss, const float* dlogits) {
  const auto [low, high] = std::minmax_element(logits, logits + n);
  const double range = static_cast<double>(*high) - static_cast<double>(*low);
  double total = 0;
  for (int i = 0; i < n; ++i) total += std::exp(static_cast<double>(logits[i]) - *high);
  const int chunks = n / (n <= 1024 ? 128 : 1024) + 1;
  const double relative = kRounding * (range + 6 * chunks + 90);
  const double exact = std::log(total) + (static_cast<double>(*high) - logits[target]);
  CHECK(std::abs(loss - exact) <= relative + kRounding * (range + 4 * exact));
  double worst = 0;
  for (int i = 0; i < n; ++i) {
    const double p = std::exp(static_cast<double>(logits[i]) - *high) / total;
    const double error = std::abs(dlogits[i] - kScale * (p - (i == target ? 1 : 0)));
    const double bound = kScale * (p * (relative + kRounding * (range + 8)) + kRounding);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error / bound);
  }
  CHECK(worst <= 1);
}

TEST_CASE("The cross-entropy and its gradient are those of the formula, in place too") {
  // Around a quad, a warp's and a block's chunk, and the warp's largest vocabulary.
  const int n = GENERATE(1, 2, 5, 32, 127, 128, 130, 256, 1023, 1024, 1025, 2052);
  CAPTURE(n);
  const std::size_t rows = n > 1024 ? 2 : 9;  // 8 of a block
  const std::vector<float> logits = random_logits(static_cast<int>(rows) * n, 1);
  std::vector<std::int32_t> targets(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    targets[row] = static_cast<std::int32_t>((row * 37 + 1) % static_cast<std::size_t>(n));
  }
  targets[0] = n - 1;
  const Result once = run(logits, targets);
  std::vector<float> gradients;
  for (const std::uint32_t bits : once.dlogits) gradients.push_back(std::bit_cast<float>(bits));
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t start = row * static_cast<std::size_t>(n);
    check_row(&logits[start], n, targets[row], once.loss_of(row), &gradients[start]);
  }
  test::in_each_execution([&] {
    CHECK(run(logits, targets, Gradient::in_place) == once);
    CHECK(run(logits, targets, Gradient::none).loss == once.loss);
  });
}

TEST_CASE("The cross-entropy of a row is the same wherever the row lies") {
  const int n = GENERATE(7, 1031);  // neither is a multiple of 4
  const std::vector<float> row = random_logits(n, 2);
  std::vector<float> logits;
  for (int i = 0; i < 4; ++i) logits.insert(logits.end(), row.begin(), row.end());
  const Result four = run(logits, {3, 3, 3, 3}), one = run(row, {3});
  for (std::size_t i = 0; i < 4; ++i) {
    const auto start = four.dlogits.begin() + static_cast<std::ptrdiff_t>(i) * n;
    CHECK(four.loss[i] == one.loss[0]);
    CHECK(std::vector(start, start + n) == one.dlogits);
  }
}

TEST_CASE("The cross-entropy of the target -1 is 0, and NaN of one that is not in the vocabulary") {
  const int n = GENERATE(6, 1028);
  const auto width = static_cast<std::size_t>(n);
  const std::vector<float> logits = random_logits(4 * n, 3);
  test::in_each_execution([&] {
    const Result r = run(logits, {-1, n, 2, -2});
    CHECK(r.loss[0] == 0);
    CHECK(std::isnan(r.loss_of(1)));
    CHECK(r.loss_of(2) > 0.0f);
    CHECK(std::isnan(r.loss_of(3)));
    int wrong = 0;
    for (std::size_t i = 0; i < width; ++i) {
      wrong += r.dlogits[i] != 0 || std::isnan(r.dlogit(2 * width + i));
      wrong += !std::isnan(r.dlogit(width + i)) || !std::isnan(r.dlogit(3 * width + i));
    }
    CHECK(wrong == 0);
  });
}

TEST_CASE("The cross-entropy of huge logits does not overflow") {
  const Result r = run({3e38f, -3e38f, 1e38f}, {0});
  CHECK(r.loss[0] == 0);
  CHECK(r.dlogit(0) == 0.0f);
}

TEST_CASE("The cross-entropy shows a NaN and an infinity, and keeps other rows") {
  const int n = GENERATE(40, 1100);
  const auto width = static_cast<std::size_t>(n);
  CAPTURE(n);
  const std::vector<float> clean = random_logits(2 * n, 4);
  const Result expected = run(clean, {1, 2});
  for (const float bad : {kNaN, kInfinity}) {
    for (const std::size_t at : {0u, 33u, static_cast<unsigned>(n) - 1}) {
      std::vector<float> logits = clean;
      logits[at] = bad;
      const Result r = run(logits, {1, 2});
      CHECK(std::isnan(r.loss_of(0)));
      CHECK(std::isnan(r.dlogit(7)));
      CHECK(r.loss[1] == expected.loss[1]);
      CHECK(r.dlogits[width] == expected.dlogits[width]);
    }
  }
  // A logit of -infinity is a probability of 0.
  std::vector<float> logits = clean;
  for (std::size_t i = 0; i < 8; ++i) logits[i] = -kInfinity;
  CHECK(std::isfinite(run(logits, {30, 2}).loss_of(0)));
  CHECK(run(logits, {30, 2}).dlogit(5) == 0.0f);
  CHECK(run(logits, {5, 2}).loss_of(0) == kInfinity);
  std::fill_n(logits.begin(), n, -kInfinity);
  CHECK(std::isnan(run(logits, {5, 2}).loss_of(0)));
}

TEST_CASE("The cross-entropy refuses an empty shape") {
  CHECK(cross_entropy({nullptr, nullptr, nullptr, 1.0f, nullptr, 0, 5}, nullptr) ==
        cudaErrorInvalidValue);
  CHECK(cross_entropy({nullptr, nullptr, nullptr, 1.0f, nullptr, 5, 0}, nullptr) ==
        cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
