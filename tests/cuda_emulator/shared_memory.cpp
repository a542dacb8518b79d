// SPDX-License-Identifier: MIT
#include "tests/cuda_emulator/shared_memory.h"

#include <algorithm>
#include <cstdlib>

#include "tests/cuda_emulator/sanitizers.h"

namespace bitnet::emulator {
namespace {

constexpr std::size_t kAlignment = 128;
constexpr std::size_t kRedZone = 128;  // at least, before the first and after each variable
constexpr std::size_t kArenaBytes = 512 << 10;
constexpr std::uint8_t kRedZoneByte = 0x6B;

// Not memset, which ThreadSanitizer watches even here.
void fill(char* from, std::size_t bytes, std::uint8_t value) {
  if constexpr (kThreadSanitizer) {
    for (std::size_t i = 0; i < bytes; ++i) {
      static_cast<volatile char*>(from)[i] = static_cast<char>(value);
    }
  } else {
    std::fill_n(from, bytes, static_cast<char>(value));
  }
}

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

SharedMemory::SharedMemory() { make_arena(); }

void SharedMemory::make_arena() {
  arena_storage_ = std::vector<char>(kArenaBytes + kAlignment);
  const auto start = reinterpret_cast<std::uintptr_t>(arena_storage_.data());
  arena_ = arena_storage_.data() + (round_up(start, kAlignment) - start);
}

void SharedMemory::fence(std::size_t from, std::size_t to) {
  fill(arena_ + from, to - from, kRedZoneByte);
  forbid_memory(arena_ + from, to - from);
}

void SharedMemory::begin_block(std::size_t dynamic_bytes, bool opt_in, std::uint8_t poison) {
  // To ThreadSanitizer, which does not order blocks, each has shared memory of its own.
  if constexpr (kThreadSanitizer) make_arena();
  allow_memory(arena_, kArenaBytes);
  variables_.clear();
  poison_ = poison;
  static_bytes_ = 0;
  const std::size_t limit = opt_in ? kOptInSharedLimit : kStaticSharedLimit;
  static_limit_ = std::min(kStaticSharedLimit, limit - std::min(limit, dynamic_bytes));
  used_ = kRedZone;
  fence(0, used_);
  dynamic_ = dynamic_bytes == 0 ? nullptr : take(nullptr, dynamic_bytes);
}

char* SharedMemory::take(const void* key, std::size_t bytes) {
  const std::size_t at = used_;
  const std::size_t end = round_up(at + bytes + kRedZone, kAlignment);
  if (end > kArenaBytes) return nullptr;
  allow_memory(arena_ + at, bytes);
  fill(arena_ + at, bytes, poison_);
  fence(at + bytes, end);
  used_ = end;
  variables_.push_back({key, arena_ + at, bytes});
  return arena_ + at;
}

void* SharedMemory::variable(const void* key, std::size_t bytes) {
  for (const Variable& v : variables_) {
    if (v.key == key) return v.begin;
  }
  static_bytes_ += round_up(bytes, 16);
  return static_bytes_ > static_limit_ ? nullptr : take(key, bytes);
}

bool SharedMemory::near(const void* address) const {
  const char* at = static_cast<const char*>(address);
  return at >= arena_ && at < arena_ + kArenaBytes;
}

bool SharedMemory::holds(const void* from, std::size_t bytes) const {
  const char* begin = static_cast<const char*>(from);
  return std::any_of(variables_.begin(), variables_.end(), [&](const Variable& v) {
    return begin >= v.begin && begin + bytes <= v.begin + v.bytes;
  });
}

bool SharedMemory::red_zones_intact() const {
  // AddressSanitizer has already reported every touch, and must not see this one.
  if constexpr (kAddressSanitizer) return true;
  const auto intact = [](const char* from, const char* to) {
    return std::all_of(from, to,
                       [](char c) { return static_cast<std::uint8_t>(c) == kRedZoneByte; });
  };
  const char* from = arena_;
  for (const Variable& v : variables_) {
    if (!intact(from, v.begin)) return false;
    from = v.begin + v.bytes;
  }
  return intact(from, arena_ + used_);
}

}  // namespace bitnet::emulator
