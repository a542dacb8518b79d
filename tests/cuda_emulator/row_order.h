// SPDX-License-Identifier: MIT
// The order in which the kernels sum a row, as a plain loop: a second account of what
// cuda/row_threads.cuh does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "cuda/row_operands.h"

namespace bitnet::test {

// Threads take 4 elements in turn, in whole warps: up to 512 of 2 times 4 elements each, else up to
// 1024 of 4 times.
inline int threads_of_row(int width) {
  const int quads = (width + 3) / 4;
  const int each = quads <= 1024 ? 2 : 4;
  const int warps = (quads + 32 * each - 1) / (32 * each);
  return 32 * (warps < 32 ? warps : 32);
}

// step(sum, i) adds element i. Each thread adds up its own in ascending order, then the lanes of
// each warp fold in halves, then the warps in order.
template <typename Step>
float sum_of_row(int width, Step step) {
  const std::size_t threads = static_cast<std::size_t>(threads_of_row(width));
  std::vector<float> of_thread(threads, 0.0f);
  for (std::size_t i = 0; i < static_cast<std::size_t>(width); ++i) {
    float& sum = of_thread[i / 4 % threads];
    sum = step(sum, i);
  }
  float total = 0.0f;
  for (std::size_t warp = 0; warp < threads / 32; ++warp) {
    float* lanes = &of_thread[warp * 32];
    for (int half = 16; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    total = warp == 0 ? lanes[0] : total + lanes[0];
  }
  return total;
}

inline std::vector<float> random_floats(int count, unsigned seed, float mean = 0.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(mean);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& v : x) v = normal(random);
  return x;
}

}  // namespace bitnet::test
