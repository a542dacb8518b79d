// SPDX-License-Identifier: MIT
// The emulator's side of what a kernel can do; the functions below are called on the fiber of a
// CUDA thread. device.h turns them into CUDA's names.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <source_location>

namespace bitnet::emulator {

using Site = std::source_location;

// Ends the kernel with an error: no CUDA thread continues. printf's format.
[[noreturn]] void kernel_failure(Site site, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

int lane_index();
void block_barrier(Site site);

// Of an overlapping launch: opens device memory, which its first block finds closed.
void wait_for_predecessors();
// Fails unless the bytes are device memory and their address and number multiples of 16.
void prefetch_to_l2(const void* from, std::size_t bytes, Site site);

// All lanes of `mask` call it with the same mask, kind and place. The last lane to arrive calls
// body once, with the lane_data of every lane in the mask; then all continue.
using CollectiveBody = void (*)(void* const* lane_data, unsigned mask);
void warp_collective(unsigned mask, const char* kind, void* lane_data, CollectiveBody body,
                     Site site);

// cp.async: 16 bytes to shared memory, zeros if not `valid` (then `global` is not read).
void start_copy(void* shared, const void* global, bool valid, Site site);
void close_copy_group();
void wait_for_copies(int groups_in_flight);

// The variable of this block that `key` stands for, allocated and poisoned at first use.
void* shared_variable(const void* key, std::size_t bytes, Site site);
void* dynamic_shared_memory();
// Fails unless the bytes lie inside one shared variable.
void require_shared(const void* from, std::size_t bytes, const char* kind, Site site);

// Checks the launch as the runtime does and puts it into the stream. Of one that may overlap its
// predecessors every thread must wait for them, and touch no device memory before.
enum class Overlap : bool { never, allowed };
cudaError_t enqueue_kernel(const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes,
                           cudaStream_t stream, Overlap overlap, std::function<void()> body);

// The text behind last_failure().
void set_failure(const char* message);
void forget_failure();

// Executes a grid now, on the calling host thread.
cudaError_t run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, bool shared_opt_in,
                     Overlap overlap, const std::function<void()>& body);

}  // namespace bitnet::emulator
