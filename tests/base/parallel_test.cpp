// SPDX-License-Identifier: MIT
#include "core/base/parallel.h"

#include <algorithm>
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
  // The same for the first range, which is tasks 0 to 2.
  runs = 0;
  team.run_ranges(10, [&](std::int64_t first, std::int64_t end) {
    if (first == 0)
      while (runs < 7) std::this_thread::yield();
    runs += static_cast<int>(end - first);
  });
  CHECK(runs == 10);
}

TEST_CASE("a thread team hands out ranges of half of what is left, each task once") {
  for (const int threads : {1, 2, 3, 130}) {
    const ThreadTeam team(threads);
    for (const std::int64_t count : {0, 1, 2, 9, 200}) {
      INFO(threads << " threads, " << count << " tasks");
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(count));
      std::atomic<int> faults{0}, ranges{0};
      std::atomic<std::int64_t> first_end{0};
      team.run_ranges(count, [&](std::int64_t first, std::int64_t end) {
        ++ranges;
        if (first < 0 || first >= end || end > count) ++faults;
        if (first == 0) first_end = end;
        for (std::int64_t i = first; i < end; ++i) ++runs[static_cast<std::size_t>(i)];
      });
      CHECK(faults == 0);
      for (const auto& number : runs) CHECK(number == 1);
      if (threads == 1) CHECK(ranges == (count > 0 ? 1 : 0));
      const std::int64_t parts = std::min(threads, 64);  // more threads share them
      if (threads > 1 && count > 1) CHECK(first_end <= tile_count(tile_count(count, parts), 2));
    }
  }
}

TEST_CASE("the first tasks of a team's threads divide all tasks") {
  for (const int threads : {1, 2, 3, 65, 130}) {
    const ThreadTeam team(threads);
    for (const std::int64_t count : {0, 1, 2, 64, 200}) {
      INFO(threads << " threads, " << count << " tasks");
      CHECK(team.first_task(count, 0) == 0);
      CHECK(team.first_task(count, threads) == count);
      bool ascending = true;
      for (int t = 0; t < threads; ++t)
        ascending = ascending && team.first_task(count, t) <= team.first_task(count, t + 1);
      CHECK(ascending);
    }
  }
}

TEST_CASE("a team that stays awake runs every task exactly once") {
  const auto nothing_to_do = [](int) { return false; };
  for (const int threads : {1, 2, 3, 70}) {
    INFO(threads << " threads");
    const ThreadTeam team(threads);
    std::vector<std::atomic<int>> runs(200);
    const auto some_calls = [&] {
      for (std::int64_t call = 0; call < 100; ++call)
        team.run(2 * call, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
    };
    team.stay_awake(some_calls, nothing_to_do);
    team.stay_awake([&] { team.stay_awake(some_calls, nothing_to_do); }, nothing_to_do);
    bool right = true;
    for (std::size_t i = 0; i < runs.size(); ++i)
      right = right && runs[i] == 2 * (99 - static_cast<int>(i) / 2);
    CHECK(right);
  }
}

TEST_CASE("a team runs many short jobs one after another, awake and not, each task once") {
  const auto nothing_to_do = [](int) { return false; };
  for (const int threads : {2, 3, 5}) {
    const ThreadTeam team(threads);
    std::vector<std::atomic<int>> runs(8);
    int expected = 0;
    const auto some_jobs = [&] {
      // Fewer tasks than threads, too: shares are empty in one job and not in the next.
      for (const std::int64_t count : {8, 1, 2, 8, 3, 0, 5, 8}) {
        ++expected;
        team.run(count, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
        // Every task of this job has run when run() returns.
        bool right = true;
        for (std::int64_t i = 0; i < count; ++i)
          right = right && runs[static_cast<std::size_t>(i)].exchange(0) == 1;
        for (const auto& number : runs) right = right && number == 0;
        if (!right) FAIL(threads << " threads, job " << expected << " of " << count << " tasks");
      }
    };
    for (int round = 0; round < 20; ++round) {
      team.stay_awake(
          [&] {
            for (int i = 0; i < 20; ++i) some_jobs();
          },
          nothing_to_do);
      some_jobs();
    }
    CHECK(expected == 20 * 21 * 8);
  }
}

TEST_CASE("a team refuses more tasks than a share's counter holds") {
  for (const int threads : {1, 2}) {
    const ThreadTeam team(threads);
    CHECK_THROWS_AS(team.run(1 << 24, [](std::int64_t) {}), ContractError);
  }
}

TEST_CASE("a team that stays awake rethrows exceptions and stays usable") {
  const ThreadTeam team(2);
  const auto nothing_to_do = [](int) { return false; };
  std::atomic<int> runs{0};
  team.stay_awake(
      [&] {
        for (int i = 0; i < 3; ++i) {
          CHECK_THROWS_AS(team.run(10,
                                   [](std::int64_t task) {
                                     if (task == 8) throw Error("task 8");
                                   }),
                          Error);
          team.run(10, [&](std::int64_t) { ++runs; });
        }
      },
      nothing_to_do);
  CHECK(runs == 30);
  CHECK_THROWS_AS(team.stay_awake([] { throw Error("body"); }, nothing_to_do), Error);
  team.run(10, [&](std::int64_t) { ++runs; });
  CHECK(runs == 40);
}

TEST_CASE("the threads of a team that stays awake use the time in which they wait") {
  const ThreadTeam team(3);
  std::atomic<int> calls[3] = {0, 0, 0};
  const auto idle = [&](int thread) { return ++calls[thread] < 100; };
  team.stay_awake(
      [&] {
        while (calls[1] == 0 || calls[2] == 0) std::this_thread::yield();
      },
      idle);
  CHECK(calls[0] == 0);  // it did not wait
}
