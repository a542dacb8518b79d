// SPDX-License-Identifier: MIT
// This file is compiled without -fsanitize=thread: libgomp is not instrumented, so the sanitizer
// cannot see that its region start and end order memory. The two fences below tell it exactly that,
// and nothing else.
#include "core/base/parallel.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
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
namespace {

// A contiguous part of the tasks, which one thread takes in ascending order: what they read is then
// one stretch of memory, so that prefetches past the end of a task are of use to the next one, and
// a thread's caches may still hold it from the last run of the same shape. Counters rather than a
// plain split: who is done takes the tasks that others have left, so a foreign process on one core
// delays one task, not half of them.
struct alignas(64) Share {
  std::atomic<std::int64_t> next{0};
  std::int64_t end = 0;
};

constexpr std::int64_t kMaxShares = 64;  // more threads than that have one together

}  // namespace

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
  Share shares[kMaxShares];
  const std::int64_t share_count = std::min<std::int64_t>(threads_, kMaxShares);
  for (std::int64_t s = 0; s < share_count; ++s) {
    shares[s].next.store(count * s / share_count, std::memory_order_relaxed);
    shares[s].end = count * (s + 1) / share_count;
  }
  std::exception_ptr failure;
  char start = 0, end = 0;
  __tsan_release(&start);
// Always the whole team, even for fewer tasks: libgomp ends and remakes threads when a team's size
// changes.
#pragma omp parallel num_threads(threads_)
  {
    __tsan_acquire(&start);
    try {
      const std::int64_t own = omp_get_thread_num() % share_count;
      for (std::int64_t s = own; s < own + share_count; ++s) {
        Share& share = shares[s % share_count];
        while (share.next.load(std::memory_order_relaxed) < share.end) {
          const std::int64_t i = share.next.fetch_add(1, std::memory_order_relaxed);
          if (i < share.end) call(task, i);
        }
      }
    } catch (...) {
#pragma omp critical(bitnet_thread_team)
      if (!failure) failure = std::current_exception();
      for (Share& share : shares) share.next = count;
    }
    __tsan_release(&end);
  }
  __tsan_acquire(&end);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace bitnet
