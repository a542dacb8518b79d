// SPDX-License-Identifier: MIT
#include "tests/cuda_emulator/faults.h"

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <ucontext.h>
#include <unistd.h>

#include "tests/cuda_emulator/device_memory.h"
#include "tests/cuda_emulator/sanitizers.h"
#include "tests/cuda_emulator/scheduler.h"

namespace bitnet::emulator {
namespace {

constexpr std::size_t kSignalStackBytes = 256 << 10;

struct sigaction earlier_action;
char fault_message[300];

// Where a CUDA thread continues after a fault: on the empty stack of its fiber.
void fault_landing() { Scheduler::current().abandon(cudaErrorIllegalAddress, fault_message); }

// "3 bytes behind an allocation of 100 bytes"
void describe(const void* address, char* text, std::size_t size) {
  const NearbyAllocation near = allocation_near(address);
  if (near.bytes == 0) {
    std::snprintf(text, size, "no device memory is near");
  } else if (near.offset < 0) {
    std::snprintf(text, size, "%lld bytes before an allocation of %zu bytes",
                  static_cast<long long>(-near.offset), near.bytes);
  } else if (static_cast<std::size_t>(near.offset) >= near.bytes) {
    std::snprintf(text, size, "%zu bytes behind the end of an allocation of %zu bytes",
                  static_cast<std::size_t>(near.offset) - near.bytes, near.bytes);
  } else {
    std::snprintf(text, size, "byte %lld of an allocation of %zu bytes",
                  static_cast<long long>(near.offset), near.bytes);
  }
}

void land_on(ucontext_t& context, char* stack_top) {
#if defined(__x86_64__)
  context.uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(&fault_landing);
  context.uc_mcontext.gregs[REG_RSP] = reinterpret_cast<greg_t>(stack_top - 8);  // as after a call
#elif defined(__aarch64__)
  context.uc_mcontext.pc = reinterpret_cast<std::uint64_t>(&fault_landing);
  context.uc_mcontext.sp = reinterpret_cast<std::uint64_t>(stack_top);
#endif
}

void on_fault(int, siginfo_t* info, void* context) {
  char where[150];
  describe(info->si_addr, where, sizeof where);
  Fiber* fiber = executing_fiber();
  if (fiber != nullptr) {
    if (info->si_code == SI_KERNEL) {  // x86 gives no address then
      std::snprintf(fault_message, sizeof fault_message, "a misaligned vector access");
    } else if (fiber->owns(info->si_addr)) {
      std::snprintf(fault_message, sizeof fault_message, "the stack of a CUDA thread overflowed");
    } else {
      std::snprintf(
          fault_message, sizeof fault_message, "illegal address %p, %s%s", info->si_addr, where,
          device_memory_closed() ? ", before the kernel waited for its predecessors" : "");
    }
    allow_memory(fiber->stack_top() - 4096, 4096);
    land_on(*static_cast<ucontext_t*>(context), fiber->stack_top());
    return;
  }
  char line[300];
  const int length = std::snprintf(line, sizeof line, "CUDA emulator: host code touched %p, %s\n",
                                   info->si_addr, where);
  (void)!write(STDERR_FILENO, line, static_cast<std::size_t>(length));
  sigaction(SIGSEGV, &earlier_action, nullptr);  // the instruction faults again, for that handler
}

// The handler cannot run on the stack that overflowed.
struct SignalStack {
  SignalStack() : memory(new char[kSignalStackBytes]) {
    stack_t stack{};
    stack.ss_sp = memory.get();
    stack.ss_size = kSignalStackBytes;
    sigaltstack(&stack, &earlier);
  }
  ~SignalStack() { sigaltstack(&earlier, nullptr); }
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;

  std::unique_ptr<char[]> memory;
  stack_t earlier{};
};

}  // namespace

void catch_faults_of_this_thread() {
  struct sigaction installed {};
  sigaction(SIGSEGV, nullptr, &installed);
  if (installed.sa_sigaction != &on_fault) {
    earlier_action = installed;
    struct sigaction action {};
    action.sa_sigaction = &on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
  }
  thread_local SignalStack stack;
}

}  // namespace bitnet::emulator
