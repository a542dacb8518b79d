// SPDX-License-Identifier: MIT
// From the runtime's error codes to exceptions.
#pragma once

#include <cuda_runtime_api.h>

namespace bitnet::cuda {

// Throws DeviceError that names the operation: "attention", "cudaMalloc of 12 bytes", …
void check(cudaError_t error, const char* operation);

}  // namespace bitnet::cuda
