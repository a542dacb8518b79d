// SPDX-License-Identifier: MIT
// The CUDA threads of a block that can continue, in the order of the schedule.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/cuda_emulator/emulator.h"

namespace bitnet::emulator {

// splitmix64: seeding costs nothing, which counts where every launch has its own generator.
class RandomBits {
 public:
  using result_type = std::uint64_t;
  explicit RandomBits(std::uint64_t seed) : state_(seed) {}
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~result_type{0}; }
  result_type operator()();
  std::size_t below(std::size_t n) { return static_cast<std::size_t>((*this)() % n); }

 private:
  std::uint64_t state_;
};

class ReadyQueue {
 public:
  // All of `threads` can run.
  void begin_block(int threads, Schedule schedule, RandomBits& random);
  bool empty() const { return size_ == 0; }
  void push(int thread);
  // All threads of a group become ready together: callers go through it in this direction.
  bool reversed() const { return schedule_ == Schedule::reverse; }
  int pop();

 private:
  int pop_unfair();

  Schedule schedule_ = Schedule::forward;
  RandomBits* random_ = nullptr;
  std::vector<int> threads_;               // forward, reverse: a ring from head_; else no order
  std::vector<std::uint64_t> priority_;    // unfair: of each warp
  std::vector<std::uint64_t> ready_mask_;  // unfair: lanes of each warp
  std::size_t head_ = 0, size_ = 0;
  int pops_ = 0;
};

}  // namespace bitnet::emulator
