// SPDX-License-Identifier: MIT
// Instead of the CUDA backend, in a build without it.
#include "core/base/error.h"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_limits.h"

namespace bitnet {

CudaDevices find_cuda_devices() {
  CudaDevices found;
  found.unusable =
      "this build has no CUDA backend (nvcc was not found when it was built, or BITNET_CUDA was "
      "OFF)";
  return found;
}

std::string why_no_cuda(const CudaDevices& found) { return found.unusable; }
std::string why_no_cublaslt() { return find_cuda_devices().unusable; }
std::unique_ptr<Backend> make_cuda_backend() { throw DeviceError(find_cuda_devices().unusable); }
CudaLimits measure_cuda_limits(int) { throw DeviceError(find_cuda_devices().unusable); }

}  // namespace bitnet
