// SPDX-License-Identifier: MIT
// One team of threads for the whole program (OpenMP). Work is cut into tasks by its shape alone,
// never by the number of threads, and a task writes only its own outputs: results are the same bits
// for any team.
#pragma once

#include <algorithm>
#include <cstdint>

namespace bitnet {

class ThreadTeam {
 public:
  // threads >= 1; 0 asks for the number of processors this process may use.
  explicit ThreadTeam(int threads);

  int size() const { return threads_; }

  // Within a task: which of the team's threads runs it, in [0, size()).
  static int thread();

  // Calls task(i) once for each i in [0, count) and returns when all are done. Each thread takes a
  // contiguous part of them one at a time in ascending order, the same one whenever count is the
  // same, and then what other threads have left of theirs. An exception thrown by a task is rethrown here (the first
  // one). Not re-entrant: a task must not call run().
  template <typename Task>
  void run(std::int64_t count, const Task& task) const {
    run_erased(
        count, [](const void* t, std::int64_t i) { (*static_cast<const Task*>(t))(i); }, &task);
  }

  // Runs body(), for which the whole team stays awake: a run() within it costs a fifth of what it
  // costs otherwise (0.8 us). Worth it for a sequence of many short ones. Threads that wait for
  // tasks meanwhile call idle(thread), which must be short and says whether it found something to
  // do.
  template <typename Body, typename Idle>
  void stay_awake(const Body& body, const Idle& idle) const {
    stay_awake_erased([](const void* b) { (*static_cast<const Body*>(b))(); }, &body,
                      [](const void* i, int t) { return (*static_cast<const Idle*>(i))(t); },
                      &idle);
  }

  // The first of the `count` tasks that are a thread's own in run(count, …); that of `size()` is
  // count. (Of more than 64 threads some have a part together.)
  std::int64_t first_task(std::int64_t count, int thread) const {
    const std::int64_t shares = std::min(threads_, kMaxShares);
    return count * std::min<std::int64_t>(thread, shares) / shares;
  }

 private:
  static constexpr int kMaxShares = 64;
  struct Shares;
  class Crew;

  void run_erased(std::int64_t count, void (*call)(const void*, std::int64_t),
                  const void* task) const;
  void stay_awake_erased(void (*body)(const void*), const void* body_data,
                         bool (*idle)(const void*, int), const void* idle_data) const;

  int threads_;
  mutable Crew* crew_ = nullptr;  // within stay_awake()
};

// Number of tiles of `tile` items that cover `items`.
constexpr std::int64_t tile_count(std::int64_t items, std::int64_t tile) {
  return (items + tile - 1) / tile;
}

}  // namespace bitnet
