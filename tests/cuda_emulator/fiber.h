// SPDX-License-Identifier: MIT
// Fibers: stacks that a single host thread switches between. Each emulated CUDA thread runs on one.
#pragma once

#include <cstddef>

namespace bitnet::emulator {

class Fiber {
 public:
  // The calling host thread as a fiber, so that others can switch back to it.
  Fiber();
  // A fiber with a stack of its own below a guard page; `entry` runs at the first switch and never
  // returns.
  explicit Fiber(void (*entry)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Leaves `from` (the running fiber) and continues `to`; returns when somebody switches back.
  static void switch_to(Fiber& from, Fiber& to);
  // Abandons the frames on the stack (no destructor runs): the next switch begins at `entry` again.
  void restart();

  // The address just above the stack, aligned to 16 bytes; null for a host thread.
  char* stack_top() const { return stack_ == nullptr ? nullptr : stack_ + kStackBytes; }
  bool owns(const void* address) const;

 private:
  // Instrumented code needs more stack.
#if defined(__SANITIZE_ADDRESS__) || defined(BITNET_THREAD_SANITIZER)
  static constexpr std::size_t kStackBytes = 256 << 10;
#else
  static constexpr std::size_t kStackBytes = 64 << 10;
#endif
  static void arrive();  // the first thing a fiber does after a switch

  void (*entry_)() = nullptr;
  char* stack_ = nullptr;             // lowest usable byte
  void* stack_pointer_ = nullptr;     // saved while the fiber does not run
  void* sanitizer_fiber_ = nullptr;   // ThreadSanitizer's identity of the fiber
  void* fake_stack_ = nullptr;        // AddressSanitizer's
  const void* host_stack_ = nullptr;  // of a host thread, as AddressSanitizer told
  std::size_t host_stack_bytes_ = 0;

  static void first_frame();
};

}  // namespace bitnet::emulator
