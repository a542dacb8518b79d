// SPDX-License-Identifier: MIT
// How Ctrl-C ends a training.
#pragma once

#include <atomic>
#include <csignal>
#include <thread>

namespace bitnet {

inline constexpr int kInterrupted = 130;  // the exit code

// While it lives, the first SIGINT or SIGTERM asks the training to stop after its step; the second
// one ends the process at once. A thread of its own waits for them, and every thread made later has
// them blocked: oneDNN's products keep data below the stack pointer, where the kernel would put a
// signal's frame, and a handler that interrupts one of them corrupts the heap.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  const std::atomic<bool>& stop_requested() const { return stop_requested_; }

 private:
  void wait();

  sigset_t signals_{}, mask_before_{};
  std::atomic<bool> stop_requested_ = false, done_ = false;
  std::thread waiter_;
};

}  // namespace bitnet
