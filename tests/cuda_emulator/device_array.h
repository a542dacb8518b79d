// SPDX-License-Identifier: MIT
// Device memory of a test, and checks of runtime calls.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace bitnet::test {

// "" for success: CHECK(cuda_error(cudaMalloc(…)) == "") shows the error's text when it fails.
inline std::string cuda_error(cudaError_t error) {
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : count_(count) {
    REQUIRE(cuda_error(cudaMalloc(reinterpret_cast<void**>(&data_), bytes())) == "");
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    REQUIRE(cuda_error(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice)) == "");
    // Such a copy may return before it has arrived, and a stream of a test does not wait for it.
    REQUIRE(cuda_error(cudaDeviceSynchronize()) == "");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return data_; }
  std::size_t size() const { return count_; }
  std::size_t bytes() const { return count_ * sizeof(T); }
  // Waits for the device.
  std::vector<T> to_host() const {
    REQUIRE(cuda_error(cudaDeviceSynchronize()) == "");
    std::vector<T> values(count_);
    REQUIRE(cuda_error(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost)) == "");
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

class Stream {
 public:
  Stream() { REQUIRE(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace bitnet::test
