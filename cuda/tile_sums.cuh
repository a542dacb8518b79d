// SPDX-License-Identifier: MIT
// Sums in double in the order of core/quant/ternary.h, which all backends share: tiles of kSumTile
// consecutive elements, each by 16 lanes, and the tile sums in ascending order. A tile is summed by
// half a warp, whose 16 threads are the lanes.
#pragma once

#include <cstdint>

#include "cuda/gpu.h"

namespace bitnet::cuda {

inline constexpr int kSumTile = 4096;
inline constexpr int kSumLanes = 16;

inline constexpr std::int64_t sum_tiles_in(std::int64_t elements) {
  return (elements + kSumTile - 1) / kSumTile;
}

// Calls add(x[k]) for the calling lane's elements k = lane, lane + 16, … below count, ascending.
template <typename Add>
BITNET_DEVICE void for_sum_lane(const float* x, int count, Add add) {
  constexpr int kAhead = 16;  // loads in flight
  int k = static_cast<int>(threadIdx.x) % kSumLanes;
  for (; k + (kAhead - 1) * kSumLanes < count; k += kAhead * kSumLanes) {
    float ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) ahead[i] = x[k + i * kSumLanes];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) add(ahead[i]);
  }
#pragma unroll 4
  for (; k < count; k += kSumLanes) add(x[k]);
}

// Lane l += lane l + 8, + 4, + 2, + 1: all 16 lanes get the sum. The whole warp calls.
BITNET_DEVICE double fold_sum_lanes(double sum) {
#pragma unroll
  for (int distance = kSumLanes / 2; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(gpu::kWholeWarp, sum, distance);
  }
  return sum;
}

// values[0] + values[1] + …, one after the other; thread 0 gets the sum. All threads of the block
// call: they bring the values into shared memory, the next ones while thread 0 adds.
template <int kThreads>
BITNET_DEVICE double ascending_sum(const double* values, std::int64_t count) {
  BITNET_SHARED_ARRAY(double, staged, kThreads);
  const auto value_at = [&](std::int64_t i) { return i < count ? values[i] : 0.0; };
  double sum = 0.0, next = value_at(threadIdx.x);
  for (std::int64_t first = 0; first < count; first += kThreads) {
    staged[threadIdx.x] = next;
    __syncthreads();
    next = value_at(first + kThreads + threadIdx.x);
    if (threadIdx.x == 0) {
      const int here = static_cast<int>(min(count - first, static_cast<std::int64_t>(kThreads)));
#pragma unroll 16
      for (int i = 0; i < here; ++i) sum += staged[i];
    }
    __syncthreads();  // before the next values come
  }
  return sum;
}

}  // namespace bitnet::cuda
