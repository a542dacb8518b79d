// SPDX-License-Identifier: MIT
// The CUDA backend: the Backend contract on an NVIDIA GPU of compute capability 8.0 or later. A
// build without CUDA has the same functions (no_cuda.cpp): no device, and the reason.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/backend/backend.h"

namespace bitnet {

struct CudaDevice {
  int index = 0;
  std::string name;          // "NVIDIA H100 80GB HBM3"
  std::string architecture;  // "sm_90"
  int multiprocessors = 0;
  std::int64_t memory_bytes = 0;
  std::string unusable;  // why this device cannot be used, or empty
};

struct CudaDevices {
  std::string
      unusable;  // why there is none to look at (no driver, no CUDA in this build), or empty
  std::string driver, runtime;  // newest CUDA version that the driver knows; the build's: "13.0"
  std::vector<CudaDevice> devices;
};

// What this machine has. Throws nothing, and takes less than a millisecond without a driver.
CudaDevices find_cuda_devices();

// One line that says why no device can be used; empty if one can.
std::string why_no_cuda(const CudaDevices& found);

// Why int8 and bf16 products do not go through cuBLASLt; empty if they do. Opens the library.
std::string why_no_cublaslt();

// On the first usable device. Throws DeviceError with why_no_cuda() if there is none.
std::unique_ptr<Backend> make_cuda_backend();

}  // namespace bitnet
