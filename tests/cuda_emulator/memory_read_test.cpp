// SPDX-License-Identifier: MIT
// The kernel that measures the memory: it reads every word, as often as it is told, and no other.
#include "cuda/memory_read.h"

#include <numeric>
#include <random>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::cuda_error;
using test::DeviceArray;

std::uint32_t sum_of(const std::vector<std::uint32_t>& words) {
  return std::accumulate(words.begin(), words.end(), std::uint32_t{0});
}

TEST_CASE("The memory is read once a round, by more and by fewer blocks than it has tiles") {
  const int tiles = GENERATE(1, 2, 3), blocks = GENERATE(1, 2, 4), rounds = GENERATE(1, 4);
  std::mt19937 random(1);
  std::vector<std::uint32_t> words(static_cast<std::size_t>(tiles * kReadTile / 4));
  for (auto& word : words) word = static_cast<std::uint32_t>(random());
  const std::uint32_t expected = static_cast<std::uint32_t>(rounds) * sum_of(words);
  CAPTURE(tiles, blocks, rounds);
  test::in_each_execution([&] {
    const test::Stream stream;
    DeviceArray<std::uint32_t> from(words);
    DeviceArray<std::uint32_t> sums(
        std::vector<std::uint32_t>(static_cast<std::size_t>(blocks * kReadThreads), 7));
    const MemoryRead op{reinterpret_cast<const std::uint8_t*>(from.data()), tiles * kReadTile,
                        rounds, blocks, sums.data()};
    REQUIRE(cuda_error(memory_read(op, stream)) == "");
    CHECK(sum_of(sums.to_host()) == expected);
  });
}

TEST_CASE("The reading of memory refuses what is no whole number of tiles") {
  const MemoryRead good{nullptr, kReadTile, 1, 1, nullptr};
  const auto refuses = [](const MemoryRead& op) {
    return memory_read(op, nullptr) == cudaErrorInvalidValue;
  };
  MemoryRead op = good;
  op.bytes = kReadTile - 16;
  CHECK(refuses(op));
  op.bytes = kReadTile + 16;
  CHECK(refuses(op));
  op = good;
  op.rounds = 0;
  CHECK(refuses(op));
  op = good;
  op.blocks = 0;
  CHECK(refuses(op));
  CHECK(memory_read_blocks(2) == 2 * memory_read_blocks(1));
}

}  // namespace
}  // namespace bitnet::cuda
