// SPDX-License-Identifier: MIT
#include "core/cpu/read_ahead.h"

#include "tests/support/catch.h"

namespace bitnet::cpu {
namespace {

// Fetches of 512 bytes until there is nothing more.
std::int64_t steps(ReadAhead& ahead, int thread) {
  std::int64_t count = 0;
  while (ahead.step(thread)) ++count;
  return count;
}

}  // namespace

TEST_CASE("each thread reads ahead in its part of the next product, behind the last in the first") {
  const std::vector<char> memory(16 << 10);
  ReadAhead ahead(2);
  std::int64_t asked = 0;
  const auto start = [&](std::int64_t product) {  // product p: p + 1 steps of thread 0, 8 of 1
    ahead.start_product(product + 10, [&](int thread) -> ReadAhead::Stretch {
      ++asked;
      return {memory.data(), thread == 0 ? 512 * (product + 1) : 4096};
    });
  };
  CHECK(steps(ahead, 0) == 0);
  for (int time = 0; time < 3; ++time) {
    ahead.begin();
    for (std::int64_t product = 0; product < 3; ++product) {
      INFO("time " << time << ", product " << product);
      start(product);
      const std::int64_t next = time == 0 ? 0 : (product + 1) % 3;  // at first none is known
      CHECK(steps(ahead, 0) == next + 1);
      CHECK(steps(ahead, 0) == 0);
      CHECK(steps(ahead, 1) == 8);
    }
  }
  CHECK(asked == 6);
  CHECK(ahead.bytes() == 10 + 11 + 12);
}

TEST_CASE("a sequence that broke off is learnt to its end the next time") {
  const std::vector<char> memory(4 << 10);
  ReadAhead ahead(1);
  std::int64_t asked = 0;
  const auto run = [&](std::int64_t products) {
    ahead.begin();
    for (std::int64_t p = 0; p < products; ++p)
      ahead.start_product(0, [&](int) -> ReadAhead::Stretch {
        ++asked;
        return {memory.data(), 512 * (p + 1)};
      });
  };
  run(2);
  run(4);
  CHECK(asked == 4);
  run(3);
  CHECK(steps(ahead, 0) == 4);
}

TEST_CASE("a thread reads ahead as much as its cache holds, and nothing where it has no part") {
  const std::vector<char> memory(std::size_t{3} << 20);
  ReadAhead ahead(2);
  ahead.begin();
  ahead.start_product(0, [&](int thread) -> ReadAhead::Stretch {
    if (thread == 1) return {};
    return {memory.data(), static_cast<std::int64_t>(memory.size())};
  });
  CHECK(steps(ahead, 0) == (1 << 20) / 512);
  CHECK(steps(ahead, 1) == 0);
}

}  // namespace bitnet::cpu
