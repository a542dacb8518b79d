// SPDX-License-Identifier: MIT
// Reductions over a warp and over a block, in one fixed order: the same bits in every run.
#pragma once

#include "cuda/gpu.h"

namespace bitnet::cuda {

// Over the lanes by a butterfly of distances 16, 8, 4, 2, 1; every lane gets the result.
BITNET_DEVICE float warp_sum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(gpu::kWholeWarp, value, distance);
  }
  return value;
}

namespace detail {

// Folds one value of each warp in ascending order; every thread gets the result. All threads call.
template <int kThreads, typename T, typename Fold>
BITNET_DEVICE T fold_warps(T value, Fold fold) {
  static_assert(kThreads % gpu::kWarpSize == 0);
  constexpr int kWarps = kThreads / gpu::kWarpSize;
  BITNET_SHARED_ARRAY(T, of_warp, kWarps);
  if (threadIdx.x % gpu::kWarpSize == 0) of_warp[threadIdx.x / gpu::kWarpSize] = value;
  __syncthreads();
  T result = of_warp[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) result = fold(result, of_warp[warp]);
  __syncthreads();  // the next call writes of_warp again
  return result;
}

}  // namespace detail

template <int kThreads>
BITNET_DEVICE float block_sum(float value) {
  return detail::fold_warps<kThreads>(warp_sum(value), [](float a, float b) { return a + b; });
}
template <int kThreads>
BITNET_DEVICE int block_sum(int value) {
  return detail::fold_warps<kThreads>(__reduce_add_sync(gpu::kWholeWarp, value),
                                      [](int a, int b) { return a + b; });
}

// Of the bits of magnitudes: they order as the numbers do, infinity and NaN on top.
template <int kThreads>
BITNET_DEVICE unsigned block_max(unsigned value) {
  return detail::fold_warps<kThreads>(__reduce_max_sync(gpu::kWholeWarp, value),
                                      [](unsigned a, unsigned b) { return max(a, b); });
}

}  // namespace bitnet::cuda
