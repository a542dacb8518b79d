// SPDX-License-Identifier: MIT
// RMSNorm fused with quantisation against the same order of operations written as plain loops:
// equal bits in every execution.
#include "cuda/norm_quantize.h"

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

constexpr float kEps = 1e-5f;

struct Result {
  std::vector<std::int8_t> codes;
  std::vector<std::uint32_t> act_scale, inv_rms;  // bits: comparable where they are NaN
  bool operator==(const Result&) const = default;
};

// 256 threads take 8 elements at a time; each adds up its own, then the lanes of each of the 8
// warps fold in halves, then the warps in order.
float sum_of_squares(const float* x, int n) {
  std::vector<float> of_thread(256, 0.0f);
  for (int i = 0; i < n; ++i) {
    float& sum = of_thread[static_cast<std::size_t>(i / 8 % 256)];
    sum = std::fma(x[i], x[i], sum);
  }
  float total = 0.0f;
  for (std::size_t warp = 0; warp < 8; ++warp) {
    float* lanes = &of_thread[warp * 32];
    for (int half = 16; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    total = warp == 0 ? lanes[0] : total + lanes[0];
  }
  return total;
}

Result expected_result(const std::vector<float>& x, const std::vector<float>& gain, int n) {
  Result r;
  for (std::size_t row = 0; row < x.size(); row += static_cast<std::size_t>(n)) {
    const float mean_square = sum_of_squares(&x[row], n) / static_cast<float>(n);
    const float inv_rms = 1.0f / std::sqrt(mean_square + kEps);
    std::vector<float> z;
    float absmax = 1e-5f;
    bool finite = true;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      z.push_back(x[row + i] * inv_rms * (gain.empty() ? 1.0f : gain[i]));
      finite = finite && std::isfinite(z[i]);
      if (!(std::abs(z[i]) <= absmax)) absmax = std::abs(z[i]);
    }
    for (const float v : z) {
      r.codes.push_back(finite ? static_cast<std::int8_t>(std::nearbyint(v * (127.0f / absmax)))
                               : std::int8_t{0});
    }
    r.act_scale.push_back(std::bit_cast<std::uint32_t>(absmax / 127.0f));
    r.inv_rms.push_back(std::bit_cast<std::uint32_t>(inv_rms));
  }
  return r;
}

template <typename Input>
Result run(const std::vector<Input>& x, const std::vector<float>& gain, int n) {
  const test::Stream stream;
  const int rows = static_cast<int>(x.size()) / n;
  DeviceArray<Input> inputs(x);
  DeviceArray<float> gains(gain.empty() ? std::vector<float>(1) : gain);
  DeviceArray<std::int8_t> codes(x.size());
  DeviceArray<float> act_scale(static_cast<std::size_t>(rows)),
      inv_rms(static_cast<std::size_t>(rows));
  const NormQuantize<Input> op{inputs.data(),
                               gain.empty() ? nullptr : gains.data(),
                               kEps,
                               codes.data(),
                               act_scale.data(),
                               inv_rms.data(),
                               rows,
                               n};
  REQUIRE(cuda_error(norm_quantize(op, stream)) == "");
  Result r{codes.to_host(), {}, {}};
  for (const float v : act_scale.to_host()) r.act_scale.push_back(std::bit_cast<std::uint32_t>(v));
  for (const float v : inv_rms.to_host()) r.inv_rms.push_back(std::bit_cast<std::uint32_t>(v));
  return r;
}

std::vector<float> random_floats(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& v : x) v = normal(random);
  return x;
}

TEST_CASE("The norm with quantisation has the bits of the plain loops") {
  const int n = GENERATE(8, 200, 2048, 2056, 5000);  // around the 2048 of a chunk
  const bool with_gain = GENERATE(false, true);
  CAPTURE(n, with_gain);
  const std::vector<float> x = random_floats(3 * n, 1);
  const std::vector<float> gain = with_gain ? random_floats(n, 2) : std::vector<float>();
  const Result expected = expected_result(x, gain, n);
  test::in_each_execution([&] { CHECK(run(x, gain, n) == expected); });
}

TEST_CASE("The norm with quantisation reads bf16 exactly") {
  const int n = 264;
  std::vector<float> x = random_floats(2 * n, 3);
  std::vector<__nv_bfloat16> rounded;
  for (float& v : x) {
    rounded.push_back(__float2bfloat16_rn(v));
    v = __bfloat162float(rounded.back());
  }
  const std::vector<float> gain = random_floats(n, 4);
  const Result expected = expected_result(x, gain, n);
  test::in_each_execution([&] { CHECK(run(rounded, gain, n) == expected); });
}

TEST_CASE("The norm with quantisation of a row of zeros has the smallest scale") {
  const std::vector<float> x(16, 0.0f);
  const Result r = run(x, {}, 16);
  CHECK(r.codes == std::vector<std::int8_t>(16, 0));
  CHECK(std::bit_cast<float>(r.act_scale[0]) == 1e-5f / 127.0f);
}

TEST_CASE("The norm with quantisation shows a NaN in the scale and keeps other rows") {
  const int n = 40;
  std::vector<float> x = random_floats(2 * n, 5);
  const Result clean = run(x, {}, n);
  x[7] = std::numeric_limits<float>::quiet_NaN();
  const Result r = run(x, {}, n);
  CHECK(std::isnan(std::bit_cast<float>(r.act_scale[0])));
  for (std::size_t i = 0; i < 40; ++i) CHECK(r.codes[i] == 0);
  CHECK(r.act_scale[1] == clean.act_scale[1]);
  CHECK(std::vector(r.codes.begin() + n, r.codes.end()) ==
        std::vector(clean.codes.begin() + n, clean.codes.end()));
}

TEST_CASE("The norm with quantisation refuses shapes that do not fit its registers") {
  NormQuantize<float> op{nullptr, nullptr, kEps, nullptr, nullptr, nullptr, 1, 12};
  CHECK(norm_quantize(op, nullptr) == cudaErrorInvalidValue);
  op.hidden_size = 16392;
  CHECK(norm_quantize(op, nullptr) == cudaErrorInvalidValue);
}

}  // namespace
}  // namespace bitnet::cuda
