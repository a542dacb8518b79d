// SPDX-License-Identifier: MIT
// One team of threads for the whole program (OpenMP). Work is cut into tasks by its shape alone,
// never by the number of threads, and a task writes only its own outputs: results are the same bits
// for any team.
#pragma once

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

 private:
  void run_erased(std::int64_t count, void (*call)(const void*, std::int64_t),
                  const void* task) const;
  int threads_;
};

// Number of tiles of `tile` items that cover `items`.
constexpr std::int64_t tile_count(std::int64_t items, std::int64_t tile) {
  return (items + tile - 1) / tile;
}

}  // namespace bitnet
