// SPDX-License-Identifier: MIT
// Device memory: each allocation ends at a guard page, and is closed to everything while host code
// runs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitnet::emulator {

// Null when the device has too little memory left.
void* allocate_device_memory(std::size_t bytes);
bool free_device_memory(void* begin);  // false: not the beginning of an allocation
std::size_t device_memory_in_use();
// Frees everything; returns the bytes that were still allocated.
std::size_t free_all_device_memory();

// Whether all the bytes lie inside one allocation; `bytes` may be 0.
bool device_memory_holds(const void* from, std::size_t bytes);
// Whether the bytes around every allocation are as they were: false after a small overrun.
bool device_memory_fences_intact();

// The allocation that an address belongs to or just misses; bytes = 0 if there is none.
struct NearbyAllocation {
  std::size_t bytes = 0;
  std::ptrdiff_t offset = 0;
};
NearbyAllocation allocation_near(const void* address);

// While one exists, device memory is open: around the work of a stream.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

// For the part of a kernel that may run before its predecessors are done, while a DeviceAccess
// exists: closes device memory, and opens it again (which may be called when it is open).
void close_device_memory();
void reopen_device_memory();
bool device_memory_closed();  // by close_device_memory()

}  // namespace bitnet::emulator
