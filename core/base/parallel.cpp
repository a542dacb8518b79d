// SPDX-License-Identifier: MIT
// This file is compiled without -fsanitize=thread: libgomp is not instrumented, so the sanitizer
// cannot see that its region start and end order memory. The two fences below tell it exactly that,
// and nothing else.
#include "core/base/parallel.h"

#include <omp.h>
#include <sched.h>

#include <atomic>
#include <exception>

#include "core/base/error.h"

#ifdef BITNET_THREAD_SANITIZER
extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#else
static void __tsan_acquire(void*) {}
static void __tsan_release(void*) {}
#endif

namespace bitnet {

ThreadTeam::ThreadTeam(int threads) : threads_(threads) {
  if (threads_ <= 0) {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    threads_ = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
  }
  BITNET_CHECK(threads_ >= 1 && threads_ <= 1024, "{} threads asked for, expected 1 to 1024",
               threads_);
}

int ThreadTeam::thread() { return omp_get_thread_num(); }

void ThreadTeam::run_erased(std::int64_t count, void (*call)(const void*, std::int64_t),
                            const void* task) const {
  if (count <= 0) return;
  if (threads_ == 1 || count == 1) {
    for (std::int64_t i = 0; i < count; ++i) call(task, i);
    return;
  }
  std::atomic<std::int64_t> next{0};
  std::exception_ptr failure;
  char start = 0, end = 0;
  __tsan_release(&start);
// Always the whole team, even for fewer tasks: libgomp ends and remakes threads when a team's size
// changes.
#pragma omp parallel num_threads(threads_)
  {
    __tsan_acquire(&start);
    try {
      // An atomic counter rather than a static split: a foreign process on one core then delays one
      // task, not half of them.
      for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;)
        call(task, i);
    } catch (...) {
#pragma omp critical(bitnet_thread_team)
      if (!failure) failure = std::current_exception();
      next = count;
    }
    __tsan_release(&end);
  }
  __tsan_acquire(&end);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace bitnet
