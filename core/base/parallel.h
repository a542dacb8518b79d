// SPDX-License-Identifier: MIT
// One team of threads for the whole program (OpenMP). Work is cut into tasks by its shape
// alone, and a task writes only its own outputs, whichever tasks run beside it: results are the same
// bits for any team.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

namespace bitnet {

// What different threads write lies this many bytes apart: two cache lines, because processors fetch
// them in pairs, and a thread would lose a line whenever another one fetches its neighbour.
inline constexpr std::int64_t kApart = 128;

class ThreadTeam {
 public:
  // threads >= 1; 0 asks for the number of processors this process may use.
  explicit ThreadTeam(int threads);
  ~ThreadTeam();

  int size() const { return threads_; }

  // Within a task: which of the team's threads runs it, in [0, size()).
  static int thread();

  // Runs the tasks [0, count), each once, and returns when all are done: body(first, end) shall run
  // those of a range. Each thread has a contiguous part of them, the same one whenever count is the
  // same. It takes half of what is left of its part at a time, in ascending order, and then of what
  // others have left of theirs; a team of one takes all at once. An exception thrown by body is
  // rethrown here (the first one). Not re-entrant: body must not run tasks, nor may two threads of
  // the caller's. At most 2^24 - 1 tasks.
  template <typename Body>
  void run_ranges(std::int64_t count, const Body& body) const {
    // The caller's stack changes during the tasks: what all threads read of it lies apart.
    struct alignas(kApart) {
      Body body;
    } const apart{body};
    run_erased(
        count,
        [](const void* b, std::int64_t first, std::int64_t end) {
          (*static_cast<const Body*>(b))(first, end);
        },
        &apart.body);
  }

  // The same with a body for one task.
  template <typename Task>
  void run(std::int64_t count, const Task& task) const {
    run_ranges(count, [task](std::int64_t first, std::int64_t end) {
      for (std::int64_t i = first; i < end; ++i) task(i);
    });
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
  class Crew;

  void run_erased(std::int64_t count, void (*call)(const void*, std::int64_t, std::int64_t),
                  const void* body) const;
  void stay_awake_erased(void (*body)(const void*), const void* body_data,
                         bool (*idle)(const void*, int), const void* idle_data) const;

  int threads_;
  std::unique_ptr<Crew> crew_;  // of a team of two or more
};

// Number of tiles of `tile` items that cover `items`.
constexpr std::int64_t tile_count(std::int64_t items, std::int64_t tile) {
  return (items + tile - 1) / tile;
}

}  // namespace bitnet
