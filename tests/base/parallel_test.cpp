// SPDX-License-Identifier: MIT
#include "core/base/parallel.h"

#include <atomic>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "tests/support/catch.h"

using namespace bitnet;

TEST_CASE("a thread team runs every task exactly once") {
  const int threads = GENERATE(1, 2, 3);
  const ThreadTeam team(threads);
  CHECK(team.size() == threads);
  std::vector<std::atomic<int>> runs(1000);
  team.run(1000, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
  bool once = true;
  for (const auto& count : runs) once = once && count == 1;
  CHECK(once);
  team.run(0, [&](std::int64_t) { FAIL("no task was asked for"); });
}

TEST_CASE("a thread team rethrows a task's exception and stays usable") {
  const ThreadTeam team(2);
  CHECK_THROWS_AS(team.run(10,
                           [](std::int64_t i) {
                             if (i == 3) throw Error("task 3");
                           }),
                  Error);
  std::atomic<int> runs{0};
  team.run(10, [&](std::int64_t) { ++runs; });
  CHECK(runs == 10);
}

TEST_CASE("a thread team of 0 takes the processors of this process") {
  CHECK(ThreadTeam(0).size() >= 1);
}

TEST_CASE("a thread team of any size runs any number of tasks, each once") {
  for (const int threads : {2, 3, 65, 130}) {  // more than have a share of their own, too
    const ThreadTeam team(threads);
    for (const std::int64_t count : {1, 2, 3, 64, 65, 200}) {
      INFO(threads << " threads, " << count << " tasks");
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(count));
      team.run(count, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
      bool once = true;
      for (const auto& number : runs) once = once && number == 1;
      CHECK(once);
    }
  }
}

TEST_CASE("a thread that is done takes over the tasks of one that is held up") {
  const ThreadTeam team(2);
  std::atomic<int> runs{0};
  // Task 0 ends when all others have run: those behind it in the same share, too.
  team.run(10, [&](std::int64_t i) {
    if (i == 0)
      while (runs < 9) std::this_thread::yield();
    ++runs;
  });
  CHECK(runs == 10);
}
