// SPDX-License-Identifier: MIT
#include "cuda/probe.h"

#include "cuda/launch_check.h"
#include "cuda/stopwatch.h"

namespace bitnet::cuda {
namespace {

constexpr int kRounds = 3;

}  // namespace

std::size_t Probe::quickest(const Key& key, std::size_t count, std::size_t unprobed,
                            cudaStream_t stream, const Candidate& run) {
  if (forced_) return *forced_;
  if (const auto known = known_.find(key); known != known_.end()) return known->second;
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &capturing), "timing a product");
  if (capturing != cudaStreamCaptureStatusNone) return unprobed;
  // In turns, after one run each to warm up, and the best of each: clocks rise and others disturb.
  std::vector<std::size_t> usable;
  for (std::size_t i = 0; i < count; ++i)
    if (run(i)) usable.push_back(i);
  std::size_t best = unprobed;
  std::optional<float> best_time;
  for (int round = 0; round < kRounds; ++round) {
    for (const std::size_t i : usable) {
      const float time = milliseconds_of(stream, "timing a product", [&] { run(i); });
      if (best_time && time >= *best_time) continue;
      best = i;
      best_time = time;
    }
  }
  known_.emplace(key, best);
  return best;
}

}  // namespace bitnet::cuda
