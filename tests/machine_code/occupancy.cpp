// SPDX-License-Identifier: MIT
// How many blocks of a kernel fit on one multiprocessor, by NVIDIA's own calculator. Reads lines
// "architecture threads registers static_shared dynamic_shared", such as "90 256 128 64 49152", and
// prints one number for each: 0 where the block does not fit at all.
#include <cuda_runtime_api.h>
// After the runtime's header.
#include <cuda_occupancy.h>

#include <cstdio>

namespace {

constexpr int kKiB = 1024;

// CUDA C++ programming guide, "Technical specifications per compute capability". What is the same
// for all of them: 64 K registers, 1024 threads a block, 1 KB of each block's shared memory reserved.
struct Architecture {
  int number;
  int threads;     // of a multiprocessor
  int shared_kib;  // of a multiprocessor
  int opt_in_kib;  // of a block that asks for more than 48 KB
};
constexpr Architecture kArchitectures[] = {{80, 2048, 164, 163},  {86, 1536, 100, 99},
                                           {89, 1536, 100, 99},   {90, 2048, 228, 227},
                                           {100, 2048, 228, 227}, {120, 1536, 100, 99}};

struct Kernel {
  int architecture, threads, registers;
  unsigned static_shared, dynamic_shared;
};

// -1 if the architecture is unknown.
int blocks_per_multiprocessor(const Kernel& kernel) {
  for (const Architecture& a : kArchitectures) {
    if (a.number != kernel.architecture) continue;
    cudaOccDeviceProp device{};
    device.computeMajor = a.number / 10;
    device.computeMinor = a.number % 10;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = a.threads;
    device.regsPerBlock = device.regsPerMultiprocessor = 64 * kKiB;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 * kKiB;
    device.sharedMemPerMultiprocessor = static_cast<std::size_t>(a.shared_kib) * kKiB;
    device.sharedMemPerBlockOptin = static_cast<std::size_t>(a.opt_in_kib) * kKiB;
    device.reservedSharedMemPerBlock = kKiB;
    device.numSms = 1;
    cudaOccFuncAttributes attributes{};
    attributes.maxThreadsPerBlock = 1024;
    attributes.numRegs = kernel.registers;
    attributes.sharedSizeBytes = kernel.static_shared;
    attributes.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    attributes.maxDynamicSharedSizeBytes = device.sharedMemPerBlockOptin;
    const cudaOccDeviceState state{};
    cudaOccResult result{};
    const cudaOccError error = cudaOccMaxActiveBlocksPerMultiprocessor(
        &result, &device, &attributes, &state, kernel.threads, kernel.dynamic_shared);
    return error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : 0;
  }
  return -1;
}

}  // namespace

int main() {
  Kernel k{};
  while (std::scanf("%d %d %d %u %u", &k.architecture, &k.threads, &k.registers, &k.static_shared,
                    &k.dynamic_shared) == 5) {
    const int blocks = blocks_per_multiprocessor(k);
    if (blocks < 0) {
      std::fprintf(stderr,
                   "occupancy: sm_%d is not in the table of tests/machine_code/occupancy.cpp\n",
                   k.architecture);
      return 1;
    }
    std::printf("%d\n", blocks);
  }
  return 0;
}
