// SPDX-License-Identifier: MIT
// Layout of one allocation: guard | fence ... | bytes | slack | guard. The guards are never open.
// The slack, up to the alignment, is what keeps an odd size from ending exactly at the guard: it is
// compared after each kernel, and AddressSanitizer forbids it to the byte.
#include "tests/cuda_emulator/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/faults.h"
#include "tests/cuda_emulator/sanitizers.h"

namespace bitnet::emulator {
namespace {

constexpr std::uint8_t kFenceByte = 0x5D;
constexpr std::size_t kGuardBytes = 1 << 20;  // of addresses, not of memory
constexpr std::size_t kFrontFence = 64;  // compared before the first byte, where the page has room

struct Allocation {
  char* map = nullptr;
  std::size_t map_bytes = 0;
  char* begin = nullptr;
  std::size_t bytes = 0;
};

std::map<const char*, Allocation> allocations;  // by begin
std::size_t in_use = 0;
int open_depth = 0;
bool closed = false;  // by close_device_memory()

std::size_t page_bytes() {
  static const std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

char* body(const Allocation& a) { return a.map + kGuardBytes; }
std::size_t body_bytes(const Allocation& a) { return a.map_bytes - 2 * kGuardBytes; }
char* slack(const Allocation& a) { return a.begin + a.bytes; }
std::size_t slack_bytes(const Allocation& a) {
  return static_cast<std::size_t>(body(a) + body_bytes(a) - slack(a));
}
std::size_t front_bytes(const Allocation& a) {
  return std::min(kFrontFence, static_cast<std::size_t>(a.begin - body(a)));
}

void protect(const Allocation& a, int protection) { mprotect(body(a), body_bytes(a), protection); }

void protect_all(int protection) {
  for (const auto& [begin, a] : allocations) protect(a, protection);
}

void forbid_fences(const Allocation& a) {
  forbid_memory(a.begin - front_bytes(a), front_bytes(a));
  forbid_memory(slack(a), slack_bytes(a));
}

void release(const Allocation& a) {
  allow_memory(body(a), body_bytes(a));
  munmap(a.map, a.map_bytes);
}

// The last allocation that begins at or before the address, or null.
const Allocation* before(const void* address) {
  auto next = allocations.upper_bound(static_cast<const char*>(address));
  return next == allocations.begin() ? nullptr : &std::prev(next)->second;
}

}  // namespace

void* allocate_device_memory(std::size_t bytes) {
  catch_faults_of_this_thread();
  if (bytes > config().device.memory_bytes - std::min(in_use, config().device.memory_bytes)) {
    return nullptr;
  }
  const std::size_t aligned = std::max(round_up(bytes, config().alignment), config().alignment);
  Allocation a;
  a.map_bytes = round_up(aligned, page_bytes()) + 2 * kGuardBytes;
  void* map = mmap(nullptr, a.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  a.map = static_cast<char*>(map);
  a.bytes = bytes;
  a.begin = body(a) + body_bytes(a) - aligned;
  protect(a, PROT_READ | PROT_WRITE);
  std::memset(a.begin, config().poison, a.bytes);
  std::memset(a.begin - front_bytes(a), kFenceByte, front_bytes(a));
  std::memset(slack(a), kFenceByte, slack_bytes(a));
  forbid_fences(a);
  if (open_depth == 0) protect(a, PROT_NONE);
  in_use += bytes;
  allocations[a.begin] = a;
  return a.begin;
}

bool free_device_memory(void* begin) {
  const auto found = allocations.find(static_cast<const char*>(begin));
  if (found == allocations.end()) return false;
  in_use -= found->second.bytes;
  release(found->second);
  allocations.erase(found);
  return true;
}

std::size_t device_memory_in_use() { return in_use; }

std::size_t free_all_device_memory() {
  for (const auto& [begin, a] : allocations) release(a);
  allocations.clear();
  return std::exchange(in_use, 0);
}

bool device_memory_holds(const void* from, std::size_t bytes) {
  const Allocation* a = before(from);
  if (a == nullptr) return false;
  const std::size_t offset = static_cast<std::size_t>(static_cast<const char*>(from) - a->begin);
  return offset <= a->bytes && bytes <= a->bytes - offset;
}

bool device_memory_fences_intact() {
  if constexpr (kAddressSanitizer) return true;  // it has reported, and must not see the look
  const auto intact = [](const char* from, std::size_t bytes) {
    return std::all_of(from, from + bytes,
                       [](char c) { return static_cast<std::uint8_t>(c) == kFenceByte; });
  };
  const DeviceAccess access;
  return std::all_of(allocations.begin(), allocations.end(), [&](const auto& entry) {
    const Allocation& a = entry.second;
    return intact(a.begin - front_bytes(a), front_bytes(a)) && intact(slack(a), slack_bytes(a));
  });
}

NearbyAllocation allocation_near(const void* address) {
  const char* at = static_cast<const char*>(address);
  const std::ptrdiff_t reach = static_cast<std::ptrdiff_t>(kGuardBytes);
  if (const Allocation* a = before(address);
      a != nullptr && at - a->begin < static_cast<std::ptrdiff_t>(a->bytes) + reach) {
    return {a->bytes, at - a->begin};
  }
  const auto next = allocations.upper_bound(at);
  if (next != allocations.end() && next->second.begin - at < reach) {
    return {next->second.bytes, at - next->second.begin};
  }
  return {};
}

DeviceAccess::DeviceAccess() {
  if (open_depth++ == 0) protect_all(PROT_READ | PROT_WRITE);
}
DeviceAccess::~DeviceAccess() {
  if (--open_depth == 0) protect_all(PROT_NONE);
}

void close_device_memory() {
  protect_all(PROT_NONE);
  closed = true;
}
void reopen_device_memory() {
  if (std::exchange(closed, false)) protect_all(PROT_READ | PROT_WRITE);
}
bool device_memory_closed() { return closed; }

}  // namespace bitnet::emulator
