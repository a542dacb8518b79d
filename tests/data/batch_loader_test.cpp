// SPDX-License-Identifier: MIT
#include "core/data/batch_loader.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

struct Batch {
  std::vector<std::int32_t> tokens, targets;
  bool operator==(const Batch&) const = default;
};

Batch read_batch(const BatchLoader& loader, std::int64_t step, std::int64_t micro_batch) {
  const auto size =
      static_cast<std::size_t>(loader.plan().batch_size * loader.plan().sequence_length);
  Batch batch{std::vector<std::int32_t>(size), std::vector<std::int32_t>(size)};
  loader.batch(step, micro_batch, batch.tokens, batch.targets);
  return batch;
}

// 0, 1, 2, ... so that a byte tells its position.
std::vector<std::uint8_t> counting_bytes(std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  return bytes;
}

TEST_CASE("a batch depends only on seed, step and index, not on what was asked before") {
  const auto bytes = counting_bytes(251);
  const std::string order = GENERATE("random", "sequential");
  const BatchPlan plan{8, 3, 2, order, 7};
  const BatchLoader loader(bytes, plan);
  std::vector<Batch> ascending;
  for (std::int64_t i = 0; i < 20; ++i) ascending.push_back(read_batch(loader, i / 2, i % 2));
  const BatchLoader resumed(bytes, plan);
  for (std::int64_t i = 19; i >= 0; --i)
    CHECK(read_batch(resumed, i / 2, i % 2) == ascending[static_cast<std::size_t>(i)]);
}

TEST_CASE("one batch of four rows holds the windows of two micro-batches of two rows") {
  const auto bytes = counting_bytes(251);
  const std::string order = GENERATE("random", "sequential");
  const BatchLoader whole(bytes, {8, 4, 1, order, 7});
  const BatchLoader halves(bytes, {8, 2, 2, order, 7});
  for (std::int64_t step = 0; step < 10; ++step) {
    auto joined = read_batch(halves, step, 0).tokens;
    const auto second = read_batch(halves, step, 1).tokens;
    joined.insert(joined.end(), second.begin(), second.end());
    CHECK(read_batch(whole, step, 0).tokens == joined);
  }
}

TEST_CASE("targets are the bytes that follow the tokens") {
  const auto bytes = counting_bytes(200);
  const std::string order = GENERATE("random", "sequential");
  const BatchLoader loader(bytes, {16, 4, 1, order, 3});
  for (std::int64_t step = 0; step < 50; ++step) {
    const auto [tokens, targets] = read_batch(loader, step, 0);
    for (std::size_t i = 0; i < tokens.size(); ++i) REQUIRE(targets[i] == tokens[i] + 1);
  }
}

TEST_CASE("sequential windows meet every pair of bytes exactly once a pass") {
  const std::size_t size = GENERATE(17, 18, 64, 65, 101);
  const auto bytes = counting_bytes(size);
  const std::int64_t length = 5;
  const BatchLoader loader(bytes, {length, 3, 2, "sequential", 1});
  // Enough windows for `length` passes, which is a whole number of windows: length * (size - 1).
  std::vector<std::int32_t> seen(size, 0);
  std::size_t left = static_cast<std::size_t>(length) * (size - 1);
  for (std::int64_t i = 0; left > 0; ++i) {
    const auto tokens = read_batch(loader, i / 2, i % 2).tokens;
    for (std::size_t k = 0; k < tokens.size() && left > 0; ++k, --left)
      ++seen[static_cast<std::size_t>(tokens[k])];
  }
  for (std::size_t i = 0; i + 1 < size; ++i) CHECK(seen[i] == length);
  CHECK(seen[size - 1] == 0);  // the last byte is only ever a target
}

TEST_CASE("sequential windows follow each other without gap") {
  const auto bytes = counting_bytes(250);
  const BatchLoader loader(bytes, {7, 2, 1, "sequential", 1});
  std::int32_t expected = 0;
  for (std::int64_t step = 0; step < 100; ++step)
    for (const std::int32_t token : read_batch(loader, step, 0).tokens) {
      REQUIRE(token == expected);
      expected = (expected + 1) % 249;
    }
}

TEST_CASE("random windows start everywhere, the first and the last place included") {
  const auto bytes = counting_bytes(20);
  const BatchLoader loader(bytes, {16, 8, 1, "random", 5});
  std::set<std::int32_t> starts;
  for (std::int64_t step = 0; step < 50; ++step) {
    const auto tokens = read_batch(loader, step, 0).tokens;
    for (std::size_t row = 0; row < 8; ++row) starts.insert(tokens[row * 16]);
  }
  CHECK(starts == std::set<std::int32_t>{0, 1, 2, 3});
}

TEST_CASE("another seed or step gives other random windows") {
  const std::vector<std::uint8_t> bytes = counting_bytes(256);
  const BatchLoader one(bytes, {4, 16, 1, "random", 1});
  const BatchLoader two(bytes, {4, 16, 1, "random", 2});
  CHECK_FALSE(read_batch(one, 0, 0) == read_batch(two, 0, 0));
  CHECK_FALSE(read_batch(one, 0, 0) == read_batch(one, 1, 0));
}

TEST_CASE("the shortest possible data holds one window") {
  const auto bytes = counting_bytes(5);
  const std::string order = GENERATE("random", "sequential");
  const BatchLoader loader(bytes, {4, 2, 1, order, 1});
  for (std::int64_t step = 0; step < 5; ++step)
    CHECK(read_batch(loader, step, 0).tokens == std::vector<std::int32_t>{0, 1, 2, 3, 0, 1, 2, 3});
}

TEST_CASE("bytes above 127 become tokens above 127") {
  const std::vector<std::uint8_t> bytes = {255, 128, 0, 127};
  const BatchLoader loader(bytes, {3, 1, 1, "random", 1});
  CHECK(read_batch(loader, 0, 0) == Batch{{255, 128, 0}, {128, 0, 127}});
}

TEST_CASE("the batch loader refuses data and plans that cannot work") {
  const auto bytes = counting_bytes(5);
  CHECK_THROWS_WITH(
      BatchLoader(bytes, BatchPlan{5, 1, 1, "random", 1}),
      "the training split has 5 tokens, but a window of sequence length 5 takes 6; use "
      "more data, a larger share in data.split, or a shorter train.sequence_length");
  CHECK_THROWS_AS(BatchLoader({}, BatchPlan{1, 1, 1, "random", 1}), Error);
  CHECK_THROWS_AS(BatchLoader(bytes, BatchPlan{0, 1, 1, "random", 1}), UsageError);
  CHECK_THROWS_AS(BatchLoader(bytes, BatchPlan{2, 0, 1, "random", 1}), UsageError);
  CHECK_THROWS_AS(BatchLoader(bytes, BatchPlan{2, 1, -1, "random", 1}), UsageError);
  CHECK_THROWS_AS(BatchLoader(bytes, BatchPlan{2, 1, std::int64_t{1} << 40, "random", 1}),
                  UsageError);
  CHECK_THROWS_AS(BatchLoader(bytes, BatchPlan{2, 1, 1, "shuffled", 1}), UsageError);
}

TEST_CASE("the batch loader refuses a step, a micro-batch or a buffer out of range") {
  const auto bytes = counting_bytes(5);
  const BatchLoader loader(bytes, {2, 1, 1, "random", 1});
  std::vector<std::int32_t> two(2), three(3);
  CHECK_THROWS_AS(loader.batch(-1, 0, two, two), ContractError);
  CHECK_THROWS_AS(loader.batch(std::int64_t{1} << 32, 0, two, two), ContractError);
  CHECK_THROWS_AS(loader.batch(0, 1, two, two), ContractError);
  CHECK_THROWS_AS(loader.batch(0, 0, three, two), ContractError);
  CHECK_THROWS_AS(loader.batch(0, 0, two, three), ContractError);
}

}  // namespace
}  // namespace bitnet
