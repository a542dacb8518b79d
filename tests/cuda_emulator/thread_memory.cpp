// SPDX-License-Identifier: MIT
// What one CUDA thread does with shared memory: variables, and asynchronous copies into them.
#include <cstdint>
#include <cstring>
#include <utility>

#include "tests/cuda_emulator/device_memory.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/sanitizers.h"
#include "tests/cuda_emulator/scheduler.h"
#include "tests/cuda_emulator/simt.h"

namespace bitnet::emulator {
namespace {

constexpr std::size_t kCopyBytes = 16;

// On behalf of the thread that asked for it.
void carry_out(const AsyncCopy& copy) {
  const WatchedScope watched;
  if (copy.valid) {
    std::memcpy(copy.shared, copy.global, kCopyBytes);
  } else {
    std::memset(copy.shared, 0, kCopyBytes);
  }
}

bool misaligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % kCopyBytes != 0;
}

}  // namespace

void* shared_variable(const void* key, std::size_t bytes, Site site) {
  const UnwatchedScope unwatched;
  void* variable = Scheduler::current().shared().variable(key, bytes);
  if (variable == nullptr) {
    kernel_failure(site, "shared memory exhausted by a variable of %zu bytes", bytes);
  }
  return variable;
}

void* dynamic_shared_memory() { return Scheduler::current().shared().dynamic(); }

void require_shared(const void* from, std::size_t bytes, const char* kind, Site site) {
  const UnwatchedScope unwatched;
  if (!Scheduler::current().shared().holds(from, bytes)) {
    kernel_failure(site, "%s: %zu bytes that do not lie inside one shared variable", kind, bytes);
  }
}

void start_copy(void* shared, const void* global, bool valid, Site site) {
  const UnwatchedScope unwatched;
  if (misaligned(shared) || (valid && misaligned(global))) {
    kernel_failure(site, "cp.async: address not aligned to 16 bytes");
  }
  require_shared(shared, kCopyBytes, "cp.async", site);
  if (valid && !device_memory_holds(global, kCopyBytes)) {
    kernel_failure(site, "cp.async: reads outside device memory");
  }
  Scheduler& scheduler = Scheduler::current();
  const CopyMode mode = config().copies;
  const bool late =
      mode == CopyMode::late || (mode == CopyMode::random && (scheduler.random()() & 1) != 0);
  const AsyncCopy copy{shared, global, valid};
  if (late) {
    scheduler.thread().open_copies.push_back(copy);
  } else {
    carry_out(copy);
  }
}

void close_copy_group() {
  const UnwatchedScope unwatched;
  CudaThread& t = Scheduler::current().thread();
  t.copy_groups.push_back(std::move(t.open_copies));
  t.open_copies.clear();
}

void wait_for_copies(int groups_in_flight) {
  const UnwatchedScope unwatched;
  auto& groups = Scheduler::current().thread().copy_groups;
  if (groups.size() <= static_cast<std::size_t>(groups_in_flight)) return;
  const std::size_t finished = groups.size() - static_cast<std::size_t>(groups_in_flight);
  for (std::size_t g = 0; g < finished; ++g) {
    for (const AsyncCopy& copy : groups[g]) carry_out(copy);
  }
  groups.erase(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(finished));
}

}  // namespace bitnet::emulator
