// SPDX-License-Identifier: MIT
// How a limit of the device is measured: what is issued over and over, the memory that it works on,
// and the time that it takes. Sizes grow until the device has enough to do: a GPU of any size, or a
// slow one, is measured in about the same time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/limit_measurement.h"
#include "cuda/launch_check.h"

namespace bitnet::cuda {

inline constexpr const char* kMeasuring = "measuring the device's limits";  // for check()

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), kMeasuring); }
  ~Stream() {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// The stream outlives it.
class DeviceMemory {
 public:
  DeviceMemory(cudaStream_t stream, std::int64_t bytes) : stream_(stream), bytes_(bytes) {
    check(cudaMalloc(&data_, static_cast<std::size_t>(bytes)), kMeasuring);
  }
  ~DeviceMemory() {
    cudaStreamSynchronize(stream_);
    cudaFree(data_);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void zero() const {
    check(cudaMemsetAsync(data_, 0, static_cast<std::size_t>(bytes_), stream_), kMeasuring);
  }
  // By ordinary numbers: zeros take less power, with which the clocks are higher.
  template <typename T>
  void fill(const std::vector<T>& pattern) const {
    const auto whole = static_cast<std::int64_t>(pattern.size() * sizeof(T));
    for (std::int64_t at = 0; at < bytes_; at += whole) {
      const auto count = static_cast<std::size_t>(std::min(whole, bytes_ - at));
      check(cudaMemcpyAsync(as<std::byte>() + at, pattern.data(), count, cudaMemcpyHostToDevice,
                            stream_),
            kMeasuring);
    }
    check(cudaStreamSynchronize(stream_), kMeasuring);
  }

 private:
  cudaStream_t stream_;
  std::int64_t bytes_;
  void* data_ = nullptr;
};

// For reads and products: each number in [-127, 127].
std::vector<std::int8_t> random_codes();

using Issue = std::function<void()>;

// Whether an issue takes so long that a launch, a few microseconds, is nothing beside it. What is
// read in that time is many times what a second-level cache holds.
bool long_enough(cudaStream_t stream, const Issue& issue);

// `amount` is of one issue.
LimitMeasurement measure_limit(cudaStream_t stream, int repeats, std::string name, double amount,
                               const Issue& issue);

std::int64_t device_attribute(cudaDeviceAttr which);
std::int64_t free_device_bytes();

}  // namespace bitnet::cuda
