// SPDX-License-Identifier: MIT
#include "cuda/host_staging.h"

#include <cstring>

#include "cuda/launch_check.h"

namespace bitnet::cuda {

HostStaging::HostStaging(cudaStream_t stream) : stream_(stream) {
  check(cudaMallocHost(reinterpret_cast<void**>(&memory_), kSlots * kMostBytes),
        "allocating page-locked memory");
  for (cudaEvent_t& event : copied_)
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
}

HostStaging::~HostStaging() {
  for (cudaEvent_t event : copied_) cudaEventDestroy(event);
  cudaFreeHost(memory_);
}

void HostStaging::copy(const void* source, std::size_t bytes, void* destination) {
  const std::size_t slot = next_++ % kSlots;
  check(cudaEventSynchronize(copied_[slot]), "waiting for an earlier copy");
  std::byte* const staged = memory_ + slot * kMostBytes;
  std::memcpy(staged, source, bytes);
  check(cudaMemcpyAsync(destination, staged, bytes, cudaMemcpyHostToDevice, stream_),
        "copying to the device");
  check(cudaEventRecord(copied_[slot], stream_), "recording an event");
}

}  // namespace bitnet::cuda
