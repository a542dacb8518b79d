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

// A contiguous part of the tasks for each thread, which takes them in ascending order: what they
// read is then one stretch of memory, so that prefetches past the end of a task are of use to the
// next one, and a thread's caches may still hold it from the last run of the same shape. Counters
// rather than a plain split: who is done takes the tasks that others have left, so a foreign
// process on one core delays one task, not half of them.
struct ThreadTeam::Shares {
  struct alignas(64) Share {
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };
  Share shares[kMaxShares];
  std::int64_t count = 0;  // of shares
  void (*call)(const void*, std::int64_t) = nullptr;
  const void* task = nullptr;
  std::exception_ptr failure;

  void set(const ThreadTeam& team, std::int64_t tasks, void (*do_task)(const void*, std::int64_t),
           const void* data) {
    count = std::min(team.threads_, kMaxShares);
    for (int s = 0; s < count; ++s) {
      shares[s].next.store(team.first_task(tasks, s), std::memory_order_relaxed);
      shares[s].end = team.first_task(tasks, s + 1);
    }
    call = do_task;
    task = data;
    failure = nullptr;
  }

  // One thread's work: its own share, then the rest of the others'.
  void work(int thread) {
    try {
      const std::int64_t own = thread % count;
      for (std::int64_t s = own; s < own + count; ++s) {
        Share& share = shares[s % count];
        while (share.next.load(std::memory_order_relaxed) < share.end) {
          const std::int64_t i = share.next.fetch_add(1, std::memory_order_relaxed);
          if (i < share.end) call(task, i);
        }
      }
    } catch (...) {
#pragma omp critical(bitnet_thread_team)
      if (!failure) failure = std::current_exception();
      for (Share& share : shares) share.next = share.end;
    }
  }
};

// A team in one parallel region: its first thread hands out jobs, the others wait for them. A
// thread that comes late to a job, or never, holds nobody up.
class ThreadTeam::Crew {
 public:
  Crew(bool (*idle)(const void*, int), const void* idle_data)
      : idle_(idle), idle_data_(idle_data) {}

  void run(const ThreadTeam& team, std::int64_t count, void (*call)(const void*, std::int64_t),
           const void* task) {
    shares_.set(team, count, call, task);
    __tsan_release(&start_);
    job_.fetch_add(1);  // odd: a job is open
    shares_.work(0);
    job_.fetch_add(1);
    wait(0, [&] { return inside_.load() == 0; });
    __tsan_acquire(&end_);
    if (shares_.failure) std::rethrow_exception(shares_.failure);
  }

  void serve(int thread) {
    for (std::int64_t last = 0; last != kDone;) {
      std::int64_t job = last;
      wait(thread, [&] { return (job = job_.load()) != last && (job % 2 == 1 || job == kDone); });
      last = job;
      if (job == kDone) return;
      // Whoever hands out jobs closes this one before it looks who is inside.
      inside_.fetch_add(1);
      if (job_.load() == job) {
        __tsan_acquire(&start_);
        shares_.work(thread);
        __tsan_release(&end_);
      }
      inside_.fetch_sub(1);
    }
  }

  void dismiss() { job_.store(kDone); }

 private:
  static constexpr std::int64_t kDone = -2;
  // About 20 us; from then on a waiting thread lets others have its processor.
  static constexpr int kPauses = 500;

  template <typename Ready>
  void wait(int thread, const Ready& ready) {
    for (int i = 0; !ready(); ++i) {
      if (idle_(idle_data_, thread)) continue;
      if (i < kPauses) {
        pause();
      } else {
        ::sched_yield();
      }
    }
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  alignas(64) std::atomic<std::int64_t> job_{0};
  alignas(64) std::atomic<std::int64_t> inside_{0};  // threads that work on the job
  Shares shares_;
  bool (*idle_)(const void*, int);
  const void* idle_data_;
  char start_ = 0, end_ = 0;
};

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
  if (crew_ != nullptr) return crew_->run(*this, count, call, task);
  Shares shares;
  shares.set(*this, count, call, task);
  char start = 0, end = 0;
  __tsan_release(&start);
// Always the whole team, even for fewer tasks: libgomp ends and remakes threads when a team's size
// changes.
#pragma omp parallel num_threads(threads_)
  {
    __tsan_acquire(&start);
    shares.work(omp_get_thread_num());
    __tsan_release(&end);
  }
  __tsan_acquire(&end);
  if (shares.failure) std::rethrow_exception(shares.failure);
}

void ThreadTeam::stay_awake_erased(void (*body)(const void*), const void* body_data,
                                   bool (*idle)(const void*, int), const void* idle_data) const {
  if (threads_ == 1 || crew_ != nullptr) return body(body_data);
  Crew crew(idle, idle_data);
  std::exception_ptr failure;
  char start = 0, end = 0;
  __tsan_release(&start);
#pragma omp parallel num_threads(threads_)
  {
    __tsan_acquire(&start);
    const int thread = omp_get_thread_num();
    if (thread == 0) {
      crew_ = &crew;
      try {
        body(body_data);
      } catch (...) {
        failure = std::current_exception();
      }
      crew_ = nullptr;
      crew.dismiss();
    } else {
      crew.serve(thread);
    }
    __tsan_release(&end);
  }
  __tsan_acquire(&end);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace bitnet
