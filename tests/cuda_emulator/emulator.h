// SPDX-License-Identifier: MIT
// What tests see of the CUDA emulator: how the next kernels are executed, and what went wrong.
// docs/cuda_emulator.md explains it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace bitnet::emulator {

// Which CUDA thread continues when several can. A thread runs until a barrier, a warp collective or
// its end.
enum class Schedule : std::uint8_t {
  forward,  // in the order of their indices
  reverse,
  random,
  unfair,  // some warps run as far as they can before others begin
};

// When a cp.async writes shared memory: at once, when it must (a wait), or either.
enum class CopyMode : std::uint8_t { early, late, random };

// When the work of a stream is done: not before something waits for it, at once, or either.
enum class StreamMode : std::uint8_t { lazy, eager, random };

struct Device {
  cudaError_t state = cudaSuccess;  // what cudaGetDeviceCount answers: cudaErrorNoDevice, …
  std::string name = "CUDA emulator";
  int compute_major = 9, compute_minor = 0;
  int multiprocessors = 4;
  std::size_t memory_bytes = std::size_t{4} << 30;
  bool has_cublaslt = true;  // installed on this machine
};

struct Config {
  Schedule schedule = Schedule::forward;
  CopyMode copies = CopyMode::late;
  StreamMode streams = StreamMode::lazy;
  std::uint64_t seed = 1;
  std::uint8_t poison = 0xFF;   // fills device and shared memory that nobody has written
  std::size_t alignment = 256;  // of device memory, a power of two >= 16; cudaMalloc gives 256
  Device device;
};

Config& config();

struct Statistics {
  std::uint64_t launches = 0;     // grids executed
  std::uint64_t threads = 0;      // CUDA threads executed
  std::uint64_t switches = 0;     // between fibers
  std::uint64_t allocations = 0;  // of device memory
};
Statistics& statistics();

// Of the kernels that were executed without a failure, by their address.
struct KernelUse {
  std::uint64_t launches = 0;
  std::size_t dynamic_shared_bytes = 0;  // the most that a launch asked for
};
const std::map<const void*, KernelUse>& executed_kernels();

// What the last kernel did wrong, with its place; empty if nothing. The runtime calls return
// cudaErrorLaunchFailure or cudaErrorIllegalAddress from then on, until reset().
const std::string& last_failure();

// A new device: default config, no failure, no memory, no streams, no events. Returns how many
// bytes of device memory had not been freed.
std::size_t reset();

}  // namespace bitnet::emulator
