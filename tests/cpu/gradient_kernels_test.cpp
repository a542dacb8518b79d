// SPDX-License-Identifier: MIT
// Every table of gradient kernels against the definitions, bit for bit. Depends on bitnet_kernels
// alone.
#include "core/cpu/gradient_kernels.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "tests/cpu/available_isas.h"
#include "tests/support/catch.h"

namespace bitnet::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

const GradientKernels& generated_kernels() {
  const Isa isa = GENERATE(from_range(test::available_isas()));
  const GradientKernels* kernels = gradient_kernels(isa);
  REQUIRE(kernels != nullptr);
  return *kernels;
}

template <typename T>
T& at(std::vector<T>& v, std::int64_t i) {
  return v.at(static_cast<std::size_t>(i));
}

std::vector<float> random_floats(std::int64_t count, unsigned seed, float deviation = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (auto& v : x) v = normal(random);
  return x;
}

std::vector<float> random_scales(std::int64_t count, unsigned seed) {
  std::vector<float> scales = random_floats(count, seed);
  for (auto& s : scales) s = std::fabs(s) + 0.01f;
  return scales;
}

int rounded(float value) { return static_cast<int>(std::nearbyint(value)); }

// The largest |x|, a NaN above all.
void enlarge(float& largest, float x) {
  if (std::isnan(largest)) return;
  if (std::isnan(x) || std::fabs(x) > largest) largest = std::fabs(x);
}

// Equal, or both NaN.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  }
  return true;
}

void check_absmax(const GradientKernels& kernels, std::vector<float> dy,
                  std::vector<float> act_scale, std::int64_t columns) {
  const auto tokens = static_cast<std::int64_t>(act_scale.size());
  std::vector<float> rows(act_scale.size() + 1, -3), columns_before = random_scales(columns + 1, 9);
  std::vector<float> expected_rows = rows, expected_columns = columns_before;
  for (std::int64_t t = 0; t < tokens; ++t) {
    at(expected_rows, t) = 0;
    for (std::int64_t n = 0; n < columns; ++n) {
      const float v = at(dy, t * columns + n);
      enlarge(at(expected_rows, t), v);
      enlarge(at(expected_columns, n), v * at(act_scale, t));
    }
  }
  std::vector<float> column_absmax = columns_before;
  kernels.absmax(dy.data(), tokens, columns, act_scale.data(), rows.data(), column_absmax.data());
  CHECK(same(rows, expected_rows));
  CHECK(same(column_absmax, expected_columns));
}

TEST_CASE("absmax finds the largest magnitude of rows and of scaled columns") {
  const GradientKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const std::int64_t columns : {4, 8, 12, 16, 20, 60, 68}) {
    for (const std::int64_t tokens : {1, 2, 7, 8, 9, 19}) {
      INFO("columns " << columns << ", tokens " << tokens);
      std::vector<float> dy = random_floats(tokens * columns, 1);
      check_absmax(kernels, dy, random_scales(tokens, 2), columns);
      for (const float odd : {kInfinity, -kInfinity, kNaN, -kNaN, 0x1p-140f}) {
        std::vector<float> with_odd = dy;
        at(with_odd, (tokens * columns * 5) / 7) = odd;
        check_absmax(kernels, with_odd, random_scales(tokens, 2), columns);
      }
      std::vector<float> scales = random_scales(tokens, 2);
      scales.back() = kNaN;
      check_absmax(kernels, dy, scales, columns);
    }
  }
}

TEST_CASE("a row of a gradient is rounded into the order of the input gradient's panels") {
  const GradientKernels& kernels = generated_kernels();
  INFO(kernels.name);
  const std::int64_t quarter = 45;
  for (const std::int64_t count : {1, 2, 3, 7, 8, 9, 16, 17, 31, 45}) {
    INFO("count " << count);
    std::vector<float> dy = random_floats(4 * quarter, 3, 40);
    at(dy, 0) = 2.5f;  // a tie, to even
    at(dy, quarter) = -127.0f;
    for (const float inv_scale : {1.0f, 0.3f, 0.0f}) {
      std::vector<std::int8_t> codes(4 * quarter, 99), expected = codes;
      std::int32_t sum = 0;
      for (auto& v : dy) v = std::fmin(std::fmax(v, -127.0f), 127.0f);
      if (inv_scale == 0) at(dy, 2 * quarter) = kNaN;
      for (std::int64_t r = 0; r < count; ++r) {
        for (std::int64_t i = 0; i < 4; ++i) {
          const int code = inv_scale == 0 ? 0 : rounded(at(dy, i * quarter + r) * inv_scale);
          at(expected, 4 * r + i) = static_cast<std::int8_t>(code);
          sum += code;
        }
      }
      CHECK(kernels.quantize_row(dy.data(), quarter, count, inv_scale, codes.data()) == sum);
      CHECK(codes == expected);
    }
  }
}

TEST_CASE("columns of a gradient are scaled by their tokens, rounded and transposed") {
  const GradientKernels& kernels = generated_kernels();
  INFO(kernels.name);
  for (const std::int64_t columns : {4, 8, 12, 16, 36, 68}) {
    for (const std::int64_t tokens : {1, 3, 4, 31, 32, 33, 64, 70, 255, 256}) {
      INFO("columns " << columns << ", tokens " << tokens);
      std::vector<float> dy = random_floats(tokens * columns, 5);
      std::vector<float> act_scale = random_scales(tokens, 6),
                         inv_scales = random_scales(columns, 7);
      for (auto& s : inv_scales) s *= 4;  // |dy| < 6, act_scale < 6: codes stay below 127
      for (auto& v : dy) v = std::fmin(std::fmax(v, -2.5f), 2.5f);
      at(inv_scales, columns / 2) = 0;
      at(dy, columns / 2) = kInfinity;
      for (auto& s : act_scale) s = std::fmin(s, 2.5f);
      const std::int64_t padded = (tokens + 3) / 4 * 4;
      std::vector<std::int8_t> codes(static_cast<std::size_t>(columns * kGradientTile), 99);
      std::vector<std::int32_t> sums(static_cast<std::size_t>(columns + 1), -7), expected = sums;
      kernels.quantize_columns(dy.data(), tokens, columns, act_scale.data(), inv_scales.data(),
                               codes.data(), sums.data());
      bool equal = true;
      for (std::int64_t n = 0; n < columns; ++n) {
        at(expected, n) = 0;
        for (std::int64_t t = 0; t < padded; ++t) {
          int code = 0;
          if (t < tokens && at(inv_scales, n) != 0) {
            code = rounded((at(dy, t * columns + n) * at(act_scale, t)) * at(inv_scales, n));
          }
          equal = equal && at(codes, n * kGradientTile + t) == code;
          at(expected, n) += code;
        }
      }
      CHECK(equal);
      CHECK(sums == expected);
    }
  }
}

TEST_CASE("a gradient's products are scaled by their rows and stored, or added by one fma") {
  const GradientKernels& kernels = generated_kernels();
  INFO(kernels.name);
  std::mt19937 random(17);
  const std::int64_t rows = 5, stride = kGradientPanel + 9;
  std::vector<std::int32_t> acc(rows * kGradientPanel);
  for (auto& a : acc) a = static_cast<std::int32_t>(random());  // many do not fit fp32 exactly
  std::vector<float> scales = random_scales(rows, 4);
  const std::vector<float> start = random_floats(rows * stride, 8, 1e8f);
  std::vector<float> stored = start, added = start, expected_stored = start, expected_added = start;
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t o = 0; o < kGradientPanel; ++o) {
      const auto sum = static_cast<float>(at(acc, t * kGradientPanel + o));
      at(expected_stored, t * stride + o) = at(scales, t) * sum;
      float& out = at(expected_added, t * stride + o);
      out = std::fma(at(scales, t), sum, out);
    }
  }
  kernels.store_scaled(acc.data(), rows, scales.data(), stored.data(), stride);
  kernels.add_scaled(acc.data(), rows, scales.data(), added.data(), stride);
  CHECK(stored == expected_stored);
  CHECK(added == expected_added);
}

}  // namespace
}  // namespace bitnet::cpu
