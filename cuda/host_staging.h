// SPDX-License-Identifier: MIT
// Small copies from the host that do not wait for the device: through page-locked memory, in turns.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>

namespace bitnet::cuda {

class HostStaging {
 public:
  explicit HostStaging(cudaStream_t stream);
  ~HostStaging();
  HostStaging(const HostStaging&) = delete;
  HostStaging& operator=(const HostStaging&) = delete;

  static constexpr std::size_t kMostBytes = std::size_t{256} << 10;
  // Queues the copy; `source` may change as soon as this returns. bytes <= kMostBytes.
  void copy(const void* source, std::size_t bytes, void* destination);

 private:
  static constexpr std::size_t kSlots = 4;
  cudaStream_t stream_;
  std::byte* memory_ = nullptr;               // kSlots * kMostBytes
  std::array<cudaEvent_t, kSlots> copied_{};  // the last copy out of a slot
  std::size_t next_ = 0;
};

}  // namespace bitnet::cuda
