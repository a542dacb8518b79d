// SPDX-License-Identifier: MIT
// The context switch saves what the ABI calls callee-saved and changes the stack pointer.
// Floating-point control registers are shared: kernels do not change them.
#include "tests/cuda_emulator/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/cuda_emulator/sanitizers.h"

// Pushes the callee-saved registers, stores the stack pointer in *save, takes that of `to`, pops.
extern "C" void bitnet_fiber_switch(void** save, void* to);

#if defined(__x86_64__)
asm(R"(
.text
.globl bitnet_fiber_switch
.type bitnet_fiber_switch,@function
bitnet_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size bitnet_fiber_switch,.-bitnet_fiber_switch
)");
namespace {
// Six registers, then the address that `ret` jumps to, then a zero where a caller's address would
// be: at the entry of a function the stack pointer is 8 below a multiple of 16.
constexpr int kFrameWords = 8, kEntryWord = 6;
}  // namespace
#elif defined(__aarch64__)
asm(R"(
.text
.globl bitnet_fiber_switch
.type bitnet_fiber_switch,@function
bitnet_fiber_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size bitnet_fiber_switch,.-bitnet_fiber_switch
)");
namespace {
constexpr int kFrameWords = 20, kEntryWord = 11;  // x30, the link register
}  // namespace
#else
#error "The CUDA emulator has no context switch for this processor: add one to fiber.cpp."
#endif

namespace bitnet::emulator {
namespace {

constexpr std::size_t kGuardBytes = 64 << 10;  // a page everywhere, also where pages are large

thread_local Fiber* previous = nullptr;  // the fiber that the running one was entered from
thread_local Fiber* running = nullptr;

}  // namespace

Fiber::Fiber() {
#ifdef BITNET_THREAD_SANITIZER
  sanitizer_fiber_ = __tsan_get_current_fiber();
#endif
}

Fiber::Fiber(void (*entry)()) : entry_(entry) {
  void* map = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED || mprotect(map, kGuardBytes, PROT_NONE) != 0) {
    std::perror("CUDA emulator: stack of a fiber");
    std::abort();
  }
  stack_ = static_cast<char*>(map) + kGuardBytes;
#ifdef BITNET_THREAD_SANITIZER
  sanitizer_fiber_ = __tsan_create_fiber(0);
#endif
  restart();
}

// A fiber with a stack lives as long as its host thread, and is destroyed with it.
Fiber::~Fiber() {
  if (stack_ == nullptr) return;
  allow_memory(stack_, kStackBytes);
  munmap(stack_ - kGuardBytes, kGuardBytes + kStackBytes);
}

bool Fiber::owns(const void* address) const {
  const char* at = static_cast<const char*>(address);
  return stack_ != nullptr && at >= stack_ - kGuardBytes && at < stack_ + kStackBytes;
}

void Fiber::restart() {
  allow_memory(stack_, kStackBytes);
  void** frame = reinterpret_cast<void**>(stack_top()) - kFrameWords;
  std::memset(frame, 0, kFrameWords * sizeof(void*));
  frame[kEntryWord] = reinterpret_cast<void*>(&Fiber::first_frame);
  stack_pointer_ = frame;
  fake_stack_ = nullptr;
}

void Fiber::first_frame() {
  arrive();
  running->entry_();
}

void Fiber::arrive() {
#if defined(__SANITIZE_ADDRESS__)
  const void* stack = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(running->fake_stack_, &stack, &bytes);
  if (previous->stack_ == nullptr) {
    previous->host_stack_ = stack;
    previous->host_stack_bytes_ = bytes;
  }
#endif
}

void Fiber::switch_to(Fiber& from, Fiber& to) {
  previous = &from;
  running = &to;
#if defined(__SANITIZE_ADDRESS__)
  if (to.stack_ == nullptr) {
    __sanitizer_start_switch_fiber(&from.fake_stack_, to.host_stack_, to.host_stack_bytes_);
  } else {
    __sanitizer_start_switch_fiber(&from.fake_stack_, to.stack_, kStackBytes);
  }
#endif
#ifdef BITNET_THREAD_SANITIZER
  constexpr unsigned kNoOrder = 1;  // a switch alone orders nothing
  __tsan_switch_to_fiber(to.sanitizer_fiber_, kNoOrder);
#endif
  bitnet_fiber_switch(&from.stack_pointer_, to.stack_pointer_);
  arrive();
}

}  // namespace bitnet::emulator
