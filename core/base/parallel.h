// SPDX-License-Identifier: MIT
// One team of threads for the whole program (OpenMP). Work is cut into tasks by its shape
// alone, and a task writes only its own outputs, whichever tasks run beside it: results are the same
// bits for any team.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <type_traits>

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

  // Calls task(i) once for each i in [0, count) and returns when all are done. Each thread takes a
  // contiguous part of them one at a time in ascending order, the same one whenever count is the
  // same, and then what other threads have left of theirs. An exception thrown by a task is rethrown
  // here (the first one). Not re-entrant: a task must not call run(), nor may two threads of the
  // caller's. At most 2^24 - 1 tasks.
  template <typename Task>
  void run(std::int64_t count, const Task& task) const {
    run(count, Share::one_task, [task](std::int64_t first, std::int64_t end) {
      for (std::int64_t i = first; i < end; ++i) task(i);
    });
  }

  // The same for tasks that are quicker together: body(first, end) runs those of a range. A thread
  // takes half of what is left of a part at a time; a team of one takes all at once.
  template <typename Body>
  void run_ranges(std::int64_t count, const Body& body) const {
    run(count, Share::half, body);
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

  // What a thread takes at a time of what is left of a part.
  enum class Share { one_task, half };

  template <typename Body>
  void run(std::int64_t count, Share share, const Body& body) const {
    if constexpr (sizeof(Body) == sizeof(void*) && std::is_trivially_copyable_v<Body>) {
      // One pointer or reference: other threads find it where they find the job.
      run_erased(
          count, share,
          [](const void* b, std::int64_t first, std::int64_t end) {
            std::bit_cast<Body>(b)(first, end);
          },
          std::bit_cast<const void*>(body));
    } else {
      // The caller's stack changes during the tasks: what all threads read of it lies apart.
      struct alignas(kApart) {
        Body body;
      } const apart{body};
      run_erased(
          count, share,
          [](const void* b, std::int64_t first, std::int64_t end) {
            (*static_cast<const Body*>(b))(first, end);
          },
          &apart.body);
    }
  }
  void run_erased(std::int64_t count, Share share,
                  void (*call)(const void*, std::int64_t, std::int64_t), const void* body) const;
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
