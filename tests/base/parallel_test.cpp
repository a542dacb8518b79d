// SPDX-License-Identifier: MIT
#include "core/base/parallel.h"

#include <atomic>
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
