// SPDX-License-Identifier: MIT
// Sums in double in the order of core/quant/ternary.h, which all backends share: tiles of kSumTile
// consecutive elements, each by 16 lanes, and the tile sums in ascending order. A tile is summed by
// half a warp, whose 16 threads are the lanes. A lane adds one element after another, so all of them
// come into shared memory first: their loads do not wait for one another.
#pragma once

#include <cstdint>

#include "cuda/gpu.h"
#include "cuda/tensor_sums.h"

namespace bitnet::cuda {

inline constexpr int kSumLanes = 16;
inline constexpr int kHalfWarps = 2;  // of a warp

namespace detail {

constexpr int kAhead = 16;                 // elements that a lane has at once
constexpr int kStep = kAhead * kSumLanes;  // what half a warp adds in a step

BITNET_DEVICE int whole_steps(int count) { return (count + kStep - 1) / kStep * kStep; }

}  // namespace detail

// Brings x[0], …, x[count - 1] into `staged`, and zeros behind them up to a whole step. `staged` and
// x are those of the calling half warp. The whole warp calls, and sees everything afterwards.
BITNET_DEVICE void stage_elements(const float* x, int count, float* staged) {
  constexpr int kQuad = 4;
  const int lane = static_cast<int>(threadIdx.x) % kSumLanes, end = detail::whole_steps(count);
  const bool aligned = reinterpret_cast<std::uintptr_t>(x) % (kQuad * sizeof(float)) == 0;
  int k = kQuad * lane;
  if (aligned) {
#pragma unroll 8
    for (; k + kQuad <= count; k += kQuad * kSumLanes) gpu::copy_async16(staged + k, x + k, true);
    gpu::commit_copies();
  }
  for (; k < end; k += kQuad * kSumLanes) {
#pragma unroll
    for (int i = k; i < k + kQuad; ++i) staged[i] = i < count ? x[i] : 0.0f;
  }
  gpu::wait_copies<0>();
  __syncwarp();
}

// Calls add(staged[k]) for the calling lane's elements k = lane, lane + 16, … below count,
// ascending, and then for zeros: a sum that began with 0.0 keeps its bits.
template <typename Add>
BITNET_DEVICE void for_sum_lane(const float* staged, int count, Add add) {
  const int end = detail::whole_steps(count);
  for (int k = static_cast<int>(threadIdx.x) % kSumLanes; k < end; k += detail::kStep) {
    float ahead[detail::kAhead];
#pragma unroll
    for (int i = 0; i < detail::kAhead; ++i) ahead[i] = staged[k + i * kSumLanes];
#pragma unroll
    for (int i = 0; i < detail::kAhead; ++i) add(ahead[i]);
  }
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
