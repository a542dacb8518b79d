// SPDX-License-Identifier: MIT
// The shared memory of the running block: variables between red zones, poisoned for every block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitnet::emulator {

inline constexpr std::size_t kStaticSharedLimit = 48 << 10;  // also of static + dynamic, unless
inline constexpr std::size_t kOptInSharedLimit = 227 << 10;  // the kernel opts in (sm_90)

class SharedMemory {
 public:
  SharedMemory();

  // Forgets the variables of the block before.
  void begin_block(std::size_t dynamic_bytes, bool opt_in, std::uint8_t poison);
  // Null when the block's shared memory is exhausted.
  void* variable(const void* key, std::size_t bytes);
  void* dynamic() const { return dynamic_; }
  // Whether the bytes lie inside one variable.
  bool holds(const void* from, std::size_t bytes) const;
  // Whether every red zone is as it was: false after a write outside the variables.
  bool red_zones_intact() const;
  // Whether an address is in the arena at all.
  bool near(const void* address) const;

 private:
  struct Variable {
    const void* key;
    char* begin;
    std::size_t bytes;
  };
  void make_arena();
  char* take(const void* key, std::size_t bytes);
  void fence(std::size_t from, std::size_t to);

  std::vector<char> arena_storage_;
  char* arena_;
  std::size_t used_ = 0;          // of the arena, red zones included
  std::size_t static_bytes_ = 0;  // of variables
  std::size_t static_limit_ = 0;
  std::uint8_t poison_ = 0;
  void* dynamic_ = nullptr;
  std::vector<Variable> variables_;
};

}  // namespace bitnet::emulator
