// SPDX-License-Identifier: MIT
// The emulated CUDA runtime: device, memory, copies, launches. Linked instead of cudart, with the
// prototypes of the real header. A call that is not here does not link.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "tests/cuda_emulator/device_memory.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/shared_memory.h"
#include "tests/cuda_emulator/simt.h"
#include "tests/cuda_emulator/streams.h"

namespace bitnet::emulator {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

constexpr unsigned kMaxThreadsPerBlock = 1024, kMaxBlockZ = 64, kMaxGridYZ = 65535;
constexpr unsigned kMaxGridX = 2147483647;

std::map<const char*, std::size_t> pinned;         // host memory from cudaMallocHost
std::map<const void*, std::size_t> shared_opt_in;  // bytes, by kernel
std::map<const void*, KernelUse> kernel_uses;

bool is_pinned(const void* address) {
  const char* at = static_cast<const char*>(address);
  const auto next = pinned.upper_bound(at);
  return next != pinned.begin() && at < std::prev(next)->first + std::prev(next)->second;
}

cudaError_t device_error() { return config().device.state; }

}  // namespace

Config& config() {
  static Config instance;
  return instance;
}

Statistics& statistics() {
  static Statistics instance;
  return instance;
}

const std::map<const void*, KernelUse>& executed_kernels() { return kernel_uses; }

std::size_t reset() {
  const Lock lock(runtime_mutex());
  config() = Config();
  forget_failure();
  reset_streams();
  shared_opt_in.clear();
  for (const auto& [begin, bytes] : pinned) std::free(const_cast<char*>(begin));
  pinned.clear();
  return free_all_device_memory();
}

cudaError_t enqueue_kernel(const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes,
                           cudaStream_t stream, Overlap overlap, std::function<void()> body) {
  const Lock lock(runtime_mutex());
  if (device_error() != cudaSuccess) return returned(device_error());
  if (sticky_error() != cudaSuccess) return returned(sticky_error());
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreadsPerBlock || block.z > kMaxBlockZ || grid.x == 0 ||
      grid.x > kMaxGridX || grid.y == 0 || grid.y > kMaxGridYZ || grid.z == 0 ||
      grid.z > kMaxGridYZ) {
    return returned(cudaErrorInvalidConfiguration);
  }
  const auto found = shared_opt_in.find(kernel);
  const std::size_t limit = found == shared_opt_in.end() ? kStaticSharedLimit : found->second;
  if (shared_bytes > std::max(limit, kStaticSharedLimit)) return returned(cudaErrorInvalidValue);
  const bool opt_in = limit > kStaticSharedLimit;
  return enqueue(stream, [=, body = std::move(body)] {
    cudaError_t error = run_grid(grid, block, shared_bytes, opt_in, overlap, body);
    if (error == cudaSuccess && !device_memory_fences_intact()) {
      error = cudaErrorIllegalAddress;
      set_failure("a kernel wrote right before or behind an allocation of device memory");
    }
    if (error != cudaSuccess) {
      set_sticky_error(error);
      return;
    }
    KernelUse& use = kernel_uses[kernel];
    ++use.launches;
    use.dynamic_shared_bytes = std::max(use.dynamic_shared_bytes, shared_bytes);
  });
}

}  // namespace bitnet::emulator

using namespace bitnet::emulator;

extern "C" {

// --- the device ---

cudaError_t cudaGetDeviceCount(int* count) {
  if (device_error() != cudaSuccess) return returned(device_error());  // *count stays as it was
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device_error() != cudaSuccess) return returned(device_error());
  return device == 0 ? cudaSuccess : returned(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return returned(device_error());
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = device_error() == cudaErrorInsufficientDriver ? 0 : CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device_error() != cudaSuccess) return returned(device_error());
  if (device != 0) return returned(cudaErrorInvalidDevice);
  const Device& d = config().device;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = d.compute_major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = d.compute_minor;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = d.multiprocessors;
      break;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = kMaxThreadsPerBlock;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      break;
    case cudaDevAttrWarpSize:
      *value = 32;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = kStaticSharedLimit;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = kOptInSharedLimit;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = 228 << 10;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 50 << 20;
      break;
    default:
      std::fprintf(stderr, "CUDA emulator: device attribute %d is not known to it\n", attribute);
      return returned(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device_error() != cudaSuccess) return returned(device_error());
  if (device != 0) return returned(cudaErrorInvalidDevice);
  const Device& d = config().device;
  *properties = cudaDeviceProp{};
  std::snprintf(properties->name, sizeof properties->name, "%s", d.name.c_str());
  properties->totalGlobalMem = d.memory_bytes;
  properties->major = d.compute_major;
  properties->minor = d.compute_minor;
  properties->multiProcessorCount = d.multiprocessors;
  properties->maxThreadsPerBlock = kMaxThreadsPerBlock;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->warpSize = 32;
  properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
  properties->sharedMemPerBlock = kStaticSharedLimit;
  properties->sharedMemPerBlockOptin = kOptInSharedLimit;
  properties->sharedMemPerMultiprocessor = 228 << 10;
  properties->l2CacheSize = 50 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceReset() {
  const Config kept = config();
  reset();
  config() = kept;
  return cudaSuccess;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "an error of the CUDA runtime";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  const bool by_kernel = error == cudaErrorLaunchFailure || error == cudaErrorIllegalAddress;
  if (by_kernel && !last_failure().empty()) return last_failure().c_str();
  return error == cudaSuccess ? "no error" : cudaGetErrorName(error);
}

// --- memory ---

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  const Lock lock(runtime_mutex());
  if (device_error() != cudaSuccess) return returned(device_error());
  if (sticky_error() != cudaSuccess) return returned(sticky_error());
  if (const cudaError_t refused = refuse_during_capture(); refused != cudaSuccess) return refused;
  ++statistics().allocations;
  *memory = bytes == 0 ? nullptr : allocate_device_memory(bytes);
  return bytes > 0 && *memory == nullptr ? returned(cudaErrorMemoryAllocation) : cudaSuccess;
}

// Waits for the device, as the real one does.
cudaError_t cudaFree(void* memory) {
  const Lock lock(runtime_mutex());
  if (memory == nullptr) return cudaSuccess;
  const cudaError_t error = finish_all();
  return free_device_memory(memory) ? error : returned(cudaErrorInvalidValue);
}

cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  const Lock lock(runtime_mutex());
  if (device_error() != cudaSuccess) return returned(device_error());
  *memory = std::malloc(std::max<std::size_t>(bytes, 1));
  if (*memory == nullptr) return returned(cudaErrorMemoryAllocation);
  std::memset(*memory, config().poison, bytes);
  pinned[static_cast<char*>(*memory)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  return cudaMallocHost(memory, bytes);
}

cudaError_t cudaFreeHost(void* memory) {
  const Lock lock(runtime_mutex());
  if (memory == nullptr) return cudaSuccess;
  const cudaError_t error = finish_all();
  if (pinned.erase(static_cast<char*>(memory)) == 0) return returned(cudaErrorInvalidValue);
  std::free(memory);
  return error;
}

cudaError_t cudaMemGetInfo(std::size_t* available, std::size_t* total) {
  const Lock lock(runtime_mutex());
  *total = config().device.memory_bytes;
  *available = *total - device_memory_in_use();
  return returned(device_error());
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Lock lock(runtime_mutex());
  if (bytes == 0) return returned(sticky_error());
  const bool to_device = device_memory_holds(to, 1), from_device = device_memory_holds(from, 1);
  if (kind == cudaMemcpyDefault) {
    kind = to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                     : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
  }
  const bool wants_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool wants_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (to_device != wants_to || from_device != wants_from ||
      (to_device && !device_memory_holds(to, bytes)) ||
      (from_device && !device_memory_holds(from, bytes))) {
    return returned(cudaErrorInvalidValue);
  }
  // Pageable host memory is read before the call returns; pinned memory when the copy is done, and
  // so is what a graph copies.
  if (!wants_from && !is_pinned(from) && !is_capturing(stream)) {
    const char* begin = static_cast<const char*>(from);
    auto staged = std::make_shared<std::vector<char>>(begin, begin + bytes);
    return enqueue(stream, [=] { std::memcpy(to, staged->data(), bytes); });
  }
  return enqueue(stream, [=] { std::memmove(to, from, bytes); });
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(runtime_mutex());
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return error != cudaSuccess ? error : finish(nullptr);
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  const Lock lock(runtime_mutex());
  if (bytes == 0) return returned(sticky_error());
  if (!device_memory_holds(to, bytes)) return returned(cudaErrorInvalidValue);
  return enqueue(stream, [=] { std::memset(to, value, bytes); });
}

cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  const Lock lock(runtime_mutex());
  const cudaError_t error = cudaMemsetAsync(to, value, bytes, nullptr);
  return error != cudaSuccess ? error : finish(nullptr);
}

// --- kernels ---

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const Lock lock(runtime_mutex());
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<std::size_t>(value) > kOptInSharedLimit) {
    return returned(cudaErrorInvalidValue);
  }
  shared_opt_in[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}

}  // extern "C"
