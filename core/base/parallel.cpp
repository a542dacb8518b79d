// SPDX-License-Identifier: MIT
// This file is compiled without -fsanitize=thread: libgomp is not instrumented, so the sanitizer
// cannot see that its region start and end order memory, nor does it see the atomics below. The two
// fences tell it what both order: a job's start and end, and a region's.
#include "core/base/parallel.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <vector>

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

// A share's counter holds the job it is for, modulo 2^40, and the next task.
constexpr int kTaskBits = 24;
constexpr std::int64_t kMostTasks = (std::int64_t{1} << kTaskBits) - 1;
// About 20 us; from then on a waiting thread lets others have its processor.
constexpr int kPauses = 500;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

// Each thread has a share, a contiguous part of the tasks, and takes them in ascending order: what
// they read is then one stretch of memory, so that prefetches past the end of a task are of use to
// the next one, and a thread's caches may still hold it from the last job of the same shape.
// Counters rather than a plain split: who is done takes of the tasks that others have left, so that
// a foreign process on one core does not delay a whole share. A thread that comes late to a job, or
// never, holds nobody up. Where tasks are quicker together a thread takes half of what is left: the
// ranges are few, and the last ones short.
//
// A cache line takes a tenth of a microsecond from core to core, where a job may take three. So a
// job is one line, to which nobody else writes; the shares' counters need not be set for it, since
// they say which job they are for; and a thread says by one store how many tasks it has done.
class ThreadTeam::Crew {
 public:
  struct Job {
    // nullptr: the threads may go to sleep.
    void (*call)(const void*, std::int64_t, std::int64_t) = nullptr;
    const void* body = nullptr;
    std::int64_t count = 0;
    Share share = Share::one_task;
  };

  explicit Crew(const ThreadTeam& team)
      : team_(team), members_(static_cast<std::size_t>(team.threads_)) {}

  bool awake() const { return idle_ != nullptr; }

  void run(const Job& job) {
    if (failed_.load(std::memory_order_relaxed)) {
      failure_ = nullptr;
      failed_ = false;
    }
    handed_out_ += job.count;
    publish(job);
    if (awake()) {
      work(number_, job, 0);
    } else {
// Always the whole team, even for fewer tasks: libgomp ends and remakes threads when a team's size
// changes.
#pragma omp parallel num_threads(team_.threads_)
      {
        __tsan_acquire(&start_);
        work(number_, job, omp_get_thread_num());
      }
    }
    wait(0, [&] { return tasks_done() == handed_out_; });  // only awake
    __tsan_acquire(&end_);
    if (failure_) std::rethrow_exception(failure_);
  }

  void stay_awake(void (*body)(const void*), const void* body_data, bool (*idle)(const void*, int),
                  const void* idle_data) {
    idle_ = idle;
    idle_data_ = idle_data;
    const std::uint64_t seen = number_;
    std::exception_ptr failure;
    __tsan_release(&start_);
#pragma omp parallel num_threads(team_.threads_)
    {
      const int thread = omp_get_thread_num();
      if (thread == 0) {
        try {
          body(body_data);
        } catch (...) {
          failure = std::current_exception();
        }
        publish({});
      } else {
        __tsan_acquire(&start_);
        serve(thread, seen);
        __tsan_release(&end_);
      }
    }
    idle_ = nullptr;
    __tsan_acquire(&end_);
    if (failure) std::rethrow_exception(failure);
  }

 private:
  struct Member {
    // Of the thread's share, which others take from too: job << kTaskBits | next task. Of an earlier
    // job until somebody takes the first task.
    alignas(kApart) std::atomic<std::uint64_t> claimed{0};
    // Tasks that the thread has done in all jobs.
    alignas(kApart) std::atomic<std::int64_t> done{0};
  };

  // Odd numbers: the job is being written. The first thread has its first range already.
  void publish(const Job& job) {
    __tsan_release(&start_);
    if (const std::int64_t taken = first_range(job); taken > 0) {
      members_[0].claimed.store((number_ + 2) << kTaskBits | static_cast<std::uint64_t>(taken),
                                std::memory_order_relaxed);
    }
    published_.number.store(number_ + 1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    published_.call.store(job.call, std::memory_order_relaxed);
    published_.body.store(job.body, std::memory_order_relaxed);
    published_.count.store(job.count, std::memory_order_relaxed);
    published_.share.store(job.share, std::memory_order_relaxed);
    number_ += 2;
    published_.number.store(number_, std::memory_order_release);
  }

  // Of `left` tasks, how many a thread takes at once.
  static std::int64_t range_of(const Job& job, std::int64_t left) {
    return job.share == Share::half ? tile_count(left, 2) : std::min<std::int64_t>(left, 1);
  }
  std::int64_t first_range(const Job& job) const {
    return range_of(job, team_.first_task(job.count, 1));
  }

  // True if there is another job than number `seen`, which becomes its number.
  bool look(std::uint64_t& seen, Job& job) const {
    const std::uint64_t number = published_.number.load(std::memory_order_acquire);
    if (number == seen || number % 2 == 1) return false;
    job = {published_.call.load(std::memory_order_relaxed),
           published_.body.load(std::memory_order_relaxed),
           published_.count.load(std::memory_order_relaxed),
           published_.share.load(std::memory_order_relaxed)};
    std::atomic_thread_fence(std::memory_order_acquire);
    if (published_.number.load(std::memory_order_relaxed) != number) return false;
    seen = number;
    return true;
  }

  void serve(int thread, std::uint64_t seen) {
    while (true) {
      Job job;
      wait(thread, [&] { return look(seen, job); });
      if (job.call == nullptr) return;
      __tsan_acquire(&start_);
      work(seen, job, thread);
    }
  }

  // A thread's work: its own share, then the rest of the others'. All are taken if the job is over.
  void work(std::uint64_t number, const Job& job, int thread) {
    const int shares = std::min(team_.threads_, kMaxShares), own = thread % shares;
    std::int64_t done = thread == 0 ? first_range(job) : 0;
    if (done > 0) run_range(job, 0, done);
    for (int s = own; s < own + shares; ++s) {
      const std::int64_t first = team_.first_task(job.count, s % shares),
                         end = team_.first_task(job.count, s % shares + 1);
      std::atomic<std::uint64_t>& claimed = members_[static_cast<std::size_t>(s % shares)].claimed;
      for (std::int64_t i, n; (n = claim(claimed, job, number, first, end, i)) > 0; done += n) {
        run_range(job, i, i + n);
      }
    }
    if (done == 0) return;
    __tsan_release(&end_);
    std::atomic<std::int64_t>& all = members_[static_cast<std::size_t>(thread)].done;
    all.store(all.load(std::memory_order_relaxed) + done, std::memory_order_release);
  }

  // How many tasks were taken of a share [first, end) in a job, from `from` on; 0: none is left.
  // Only while the job has tasks that are not done can any be taken: afterwards the counter is at
  // the share's end, or further.
  static std::int64_t claim(std::atomic<std::uint64_t>& claimed, const Job& job,
                            std::uint64_t number, std::int64_t first, std::int64_t end,
                            std::int64_t& from) {
    const std::uint64_t tag = number << kTaskBits;
    std::uint64_t value = claimed.load(std::memory_order_relaxed);
    while (true) {
      const std::uint64_t task = value & kMostTasks;
      // Positive if the counter is of an earlier job, negative of a later one.
      const auto age = static_cast<std::int64_t>(tag - (value - task));
      from = age > 0 ? first : static_cast<std::int64_t>(task);
      if (age < 0 || from >= end) return 0;
      const std::int64_t count = range_of(job, end - from);
      const std::uint64_t taken = tag | static_cast<std::uint64_t>(from + count);
      if (claimed.compare_exchange_weak(value, taken, std::memory_order_relaxed)) return count;
    }
  }

  // After an exception the remaining tasks are only counted.
  void run_range(const Job& job, std::int64_t first, std::int64_t end) {
    if (failed_.load(std::memory_order_relaxed)) return;
    try {
      job.call(job.body, first, end);
    } catch (...) {
#pragma omp critical(bitnet_thread_team)
      if (!failure_) failure_ = std::current_exception();
      failed_ = true;
    }
  }

  std::int64_t tasks_done() const {
    std::int64_t sum = 0;
    for (const Member& member : members_) sum += member.done.load(std::memory_order_acquire);
    return sum;
  }

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

  // What all threads read and hardly anything changes.
  const ThreadTeam& team_;
  std::vector<Member> members_;
  std::atomic<bool> failed_ = false;
  std::exception_ptr failure_;
  bool (*idle_)(const void*, int) = nullptr;  // while the team stays awake
  const void* idle_data_ = nullptr;
  // Written by the thread that runs jobs, and read by those that serve.
  struct {
    alignas(kApart) std::atomic<std::uint64_t> number{0};
    std::atomic<void (*)(const void*, std::int64_t, std::int64_t)> call{nullptr};
    std::atomic<const void*> body{nullptr};
    std::atomic<std::int64_t> count{0};
    std::atomic<Share> share{Share::one_task};
  } published_;
  // That thread's own.
  alignas(kApart) std::uint64_t number_ = 0;
  std::int64_t handed_out_ = 0;  // tasks of all jobs
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
  if (threads_ > 1) crew_ = std::make_unique<Crew>(*this);
}

ThreadTeam::~ThreadTeam() = default;

int ThreadTeam::thread() { return omp_get_thread_num(); }

void ThreadTeam::run_erased(std::int64_t count, Share share,
                            void (*call)(const void*, std::int64_t, std::int64_t),
                            const void* body) const {
  BITNET_CHECK(count <= kMostTasks, "{} tasks, expected at most {}", count, kMostTasks);
  if (threads_ == 1 || count <= 1) {
    if (count > 0) call(body, 0, count);
    return;
  }
  crew_->run({call, body, count, share});
}

void ThreadTeam::stay_awake_erased(void (*body)(const void*), const void* body_data,
                                   bool (*idle)(const void*, int), const void* idle_data) const {
  if (threads_ == 1 || crew_->awake()) return body(body_data);
  crew_->stay_awake(body, body_data, idle, idle_data);
}

}  // namespace bitnet
