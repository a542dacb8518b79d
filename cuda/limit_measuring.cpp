// SPDX-License-Identifier: MIT
#include "cuda/limit_measuring.h"

#include <chrono>
#include <random>
#include <utility>

#include "cuda/stopwatch.h"

namespace bitnet::cuda {
namespace {

constexpr float kMilliseconds = 2;      // of a repeat, at least
constexpr double kWarmUpSeconds = 0.1;  // until the clocks are up

}  // namespace

std::vector<std::int8_t> random_codes() {
  std::minstd_rand random(1);
  std::vector<std::int8_t> codes(std::size_t{1} << 22);
  for (auto& code : codes) code = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
  return codes;
}

LimitMeasurement measure_limit(cudaStream_t stream, int repeats, std::string name, double amount,
                               const Issue& issue) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  do {
    issue();
    check(cudaStreamSynchronize(stream), kMeasuring);
  } while (std::chrono::duration<double>(Clock::now() - start).count() < kWarmUpSeconds);
  int issues = 1;
  const auto milliseconds = [&] {
    return milliseconds_of(stream, kMeasuring, [&] {
      for (int i = 0; i < issues; ++i) issue();
    });
  };
  while (milliseconds() < kMilliseconds) issues *= 2;
  LimitMeasurement measurement{std::move(name), {}};
  for (int i = 0; i < repeats; ++i)
    measurement.per_second.push_back(1e3 * amount * issues / static_cast<double>(milliseconds()));
  return measurement;
}

bool long_enough(cudaStream_t stream, const Issue& issue) {
  issue();  // the first is slower
  return milliseconds_of(stream, kMeasuring, issue) >= kMilliseconds;
}

std::int64_t device_attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), kMeasuring);
  check(cudaDeviceGetAttribute(&value, which, device), kMeasuring);
  return value;
}

std::int64_t free_device_bytes() {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), kMeasuring);
  return static_cast<std::int64_t>(free);
}

}  // namespace bitnet::cuda
