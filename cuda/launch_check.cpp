// SPDX-License-Identifier: MIT
#include "cuda/launch_check.h"

#include "core/base/error.h"

namespace bitnet::cuda {

void check(cudaError_t error, const char* operation) {
  if (error == cudaSuccess) return;
  throw DeviceError(fmt::format("CUDA: {}: {} ({})", operation, cudaGetErrorString(error),
                                cudaGetErrorName(error)));
}

}  // namespace bitnet::cuda
