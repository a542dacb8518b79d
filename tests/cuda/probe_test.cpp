// SPDX-License-Identifier: MIT
// Which candidate a probe chooses, and when it times them.
#include "cuda/probe.h"

#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

constexpr Probe::Key kKey = {1, 2, 3, 4}, kOtherKey = {1, 2, 3, 5};

// Candidates that are so many operations each; 0 stands for one that cannot be used.
struct Candidates {
  const test::Stream stream;
  std::vector<int> operations;
  test::DeviceArray<char> memory{16};
  int runs = 0;

  explicit Candidates(std::vector<int> counts) : operations(std::move(counts)) {}
  std::size_t ask(Probe& probe, const Probe::Key& key, std::size_t unprobed) {
    return probe.quickest(key, operations.size(), unprobed, stream, [&](std::size_t i) {
      if (operations[i] == 0) return false;
      ++runs;
      for (int k = 0; k < operations[i]; ++k) {
        REQUIRE(cudaMemsetAsync(memory.data(), 0, memory.bytes(), stream) == cudaSuccess);
      }
      return true;
    });
  }
};

TEST_CASE("a probe chooses the quickest of the candidates that can be used, and times them once",
          "[emulator]") {  // whose clock counts operations
  emulator::reset();
  {
    Candidates candidates({0, 4, 2, 3});
    Probe probe;
    CHECK(candidates.ask(probe, kKey, 1) == 2);
    const int runs = candidates.runs;
    CHECK(runs == 12);  // of three candidates, 3 and one to warm up
    CHECK(candidates.ask(probe, kKey, 1) == 2);
    CHECK(candidates.runs == runs);
    CHECK(candidates.ask(probe, kOtherKey, 1) == 2);
    CHECK(candidates.runs == 2 * runs);
  }
  CHECK(emulator::reset() == 0);
}

TEST_CASE("a probe that is forced times nothing") {
  emulator::reset();
  {
    Candidates candidates({1, 1});
    Probe probe;
    probe.force(1);
    CHECK(candidates.ask(probe, kKey, 0) == 1);
    CHECK(candidates.runs == 0);
    probe.force({});
    candidates.ask(probe, kKey, 0);
    CHECK(candidates.runs == 8);
  }
  CHECK(emulator::reset() == 0);
}

TEST_CASE("a probe does not time a stream that is being captured, and answers what it knows") {
  test::in_each_execution([&] {
    Candidates candidates({2, 1});
    Probe probe;
    CHECK(candidates.ask(probe, kKey, 0) == 1);
    const int runs = candidates.runs;
    REQUIRE(cudaStreamBeginCapture(candidates.stream, cudaStreamCaptureModeThreadLocal) ==
            cudaSuccess);
    CHECK(candidates.ask(probe, kKey, 0) == 1);
    CHECK(candidates.ask(probe, kOtherKey, 0) == 0);
    CHECK(candidates.ask(probe, kOtherKey, 1) == 1);
    CHECK(candidates.runs == runs);
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaStreamEndCapture(candidates.stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
  });
}

}  // namespace
}  // namespace bitnet::cuda
