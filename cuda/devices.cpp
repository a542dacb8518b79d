// SPDX-License-Identifier: MIT
// What the driver says about the machine's GPUs.
#include <cuda_runtime_api.h>

#include <cstdlib>

#include "core/base/error.h"
#include "cuda/cublaslt.h"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_backend_impl.h"

namespace bitnet {
namespace {

std::string version_text(int version) {  // 13000 is 13.0
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Code is built for these families and, as PTX, for later ones; cuda/CMakeLists.txt.
std::string why_unusable(int major, int minor) {
  if (major < 8)
    return fmt::format("compute capability {}.{}, but 8.0 (Ampere) or later is needed", major,
                       minor);
  const bool tegra = major == 8 && minor == 7;
  if (major == 11 || tegra)
    return fmt::format("this build has no code for compute capability {}.{}", major, minor);
  return "";
}

std::string why_no_device(cudaError_t error, const CudaDevices& found) {
  if (error == cudaErrorInsufficientDriver && found.driver.empty())
    return "there is no NVIDIA driver on this machine";
  if (error == cudaErrorInsufficientDriver)
    return fmt::format(
        "the NVIDIA driver is made for CUDA {}, but {} is needed; install a newer one",
        found.driver, found.runtime);
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  const std::string hint =
      visible == nullptr ? "" : fmt::format(" (CUDA_VISIBLE_DEVICES is '{}')", visible);
  if (error == cudaSuccess || error == cudaErrorNoDevice)
    return "the NVIDIA driver finds no GPU" + hint;
  return fmt::format("the NVIDIA driver cannot be used: {}{}", cudaGetErrorString(error), hint);
}

}  // namespace

CudaDevices find_cuda_devices() {
  CudaDevices found;
  int version = 0;
  if (cudaDriverGetVersion(&version) == cudaSuccess && version != 0)
    found.driver = version_text(version);
  if (cudaRuntimeGetVersion(&version) == cudaSuccess) found.runtime = version_text(version);
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    cudaGetLastError();  // is reported here, and not by the next call
    found.unusable = why_no_device(error, found);
    return found;
  }
  for (int index = 0; index < count; ++index) {
    CudaDevice device;
    device.index = index;
    cudaDeviceProp properties{};
    if (const cudaError_t failed = cudaGetDeviceProperties(&properties, index);
        failed != cudaSuccess) {
      cudaGetLastError();
      device.unusable = cudaGetErrorString(failed);
    } else {
      device.name = properties.name;
      device.architecture = fmt::format("sm_{}{}", properties.major, properties.minor);
      device.multiprocessors = properties.multiProcessorCount;
      device.memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
      device.unusable = why_unusable(properties.major, properties.minor);
    }
    found.devices.push_back(device);
  }
  return found;
}

std::string why_no_cuda(const CudaDevices& found) {
  if (!found.unusable.empty()) return found.unusable;
  std::string reasons;
  for (const CudaDevice& device : found.devices) {
    if (device.unusable.empty()) return "";
    reasons += fmt::format("{}GPU {} ({}): {}", reasons.empty() ? "" : "; ", device.index,
                           device.name, device.unusable);
  }
  return reasons;
}

std::string why_no_cublaslt() { return cuda::installed_cublaslt().error; }

std::unique_ptr<Backend> make_cuda_backend() {
  const CudaDevices found = find_cuda_devices();
  if (const std::string reason = why_no_cuda(found); !reason.empty()) throw DeviceError(reason);
  for (const CudaDevice& device : found.devices)
    if (device.unusable.empty()) return std::make_unique<cuda::CudaBackend>(device);
  return nullptr;  // not reached: why_no_cuda() knew a reason
}

}  // namespace bitnet
