// SPDX-License-Identifier: MIT
#include "tests/cuda_emulator/ready_queue.h"

#include <bit>
#include <utility>

namespace bitnet::emulator {

std::uint64_t RandomBits::operator()() {
  std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

void ReadyQueue::begin_block(int threads, Schedule schedule, RandomBits& random) {
  schedule_ = schedule;
  random_ = &random;
  head_ = size_ = 0;
  threads_.resize(std::bit_ceil(static_cast<std::size_t>(threads)));
  if (schedule == Schedule::unfair) {
    const std::size_t warps = (static_cast<std::size_t>(threads) + 31) / 32;
    priority_.resize(warps);
    for (std::uint64_t& p : priority_) p = random();
    ready_mask_.assign(warps, 0);
  }
  for (int i = 0; i < threads; ++i) push(reversed() ? threads - 1 - i : i);
}

void ReadyQueue::push(int thread) {
  if (schedule_ == Schedule::unfair) {
    ready_mask_[static_cast<std::size_t>(thread) / 32] |= std::uint64_t{1} << (thread % 32);
  } else if (schedule_ == Schedule::random) {
    threads_[size_] = thread;
  } else {
    threads_[(head_ + size_) & (threads_.size() - 1)] = thread;
  }
  ++size_;
}

int ReadyQueue::pop() {
  if (schedule_ == Schedule::unfair) return pop_unfair();
  if (schedule_ == Schedule::random) {
    std::swap(threads_[random_->below(size_)], threads_[size_ - 1]);
    return threads_[--size_];
  }
  const int thread = threads_[head_];
  head_ = (head_ + 1) & (threads_.size() - 1);
  --size_;
  return thread;
}

// Always the warp of the highest priority; now and then a warp's priority changes, so that it is
// overtaken in the middle of its work.
int ReadyQueue::pop_unfair() {
  if (++pops_ % 512 == 0) priority_[random_->below(priority_.size())] = (*random_)();
  std::size_t best = priority_.size();
  for (std::size_t w = 0; w < priority_.size(); ++w) {
    if (ready_mask_[w] != 0 && (best == priority_.size() || priority_[w] > priority_[best]))
      best = w;
  }
  // The parity of the priority says from which end the lanes of the warp go.
  const int lane = (priority_[best] & 1) != 0 ? std::countr_zero(ready_mask_[best])
                                              : 63 - std::countl_zero(ready_mask_[best]);
  ready_mask_[best] &= ~(std::uint64_t{1} << lane);
  --size_;
  return static_cast<int>(best) * 32 + lane;
}

}  // namespace bitnet::emulator
