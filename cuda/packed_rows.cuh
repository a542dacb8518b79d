// SPDX-License-Identifier: MIT
// Products of codes with packed rows, by dp4a. A packed row is four outputs: byte k of row r holds
// trit + 1 of outputs r, r + N/4, r + 2N/4, r + 3N/4 in its bits 0-1, 2-3, 4-5, 6-7. Masked words go
// into dp4a where the bits stand, as 1, 4 or 16 times trit + 1; the sum of the codes takes the + 1
// off again.
#pragma once

#include "cuda/gpu.h"
#include "cuda/packed_gemv.h"
#include "cuda/reals.cuh"

namespace bitnet::cuda {

inline constexpr int kQuarters = 4;
inline constexpr int kVector = 16;  // bytes of K that a lane reads at once
inline constexpr int kStep = gpu::kWarpSize * kVector;

// A lane's sums over its part of K, at most 2^24 / 32 columns: 16 * 2 * 128 times that are fewer
// than 2^31.
struct PackedSums {
  int times[kQuarters] = {};  // 1, 4, 16 and 16 times the sum of code * (trit + 1)
  int codes = 0;

  // Of 16 columns.
  BITNET_DEVICE void add(const uint4& weights, const int4& x) {
    const unsigned words[4] = {weights.x, weights.y, weights.z, weights.w};
    const int fours[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      times[0] = __dp4a(static_cast<int>(words[i] & 0x03030303U), fours[i], times[0]);
      times[1] = __dp4a(static_cast<int>(words[i] & 0x0c0c0c0cU), fours[i], times[1]);
      times[2] = __dp4a(static_cast<int>(words[i] & 0x30303030U), fours[i], times[2]);
      times[3] = __dp4a(static_cast<int>(words[i] >> 2 & 0x30303030U), fours[i], times[3]);
      codes = __dp4a(0x01010101, fours[i], codes);
    }
  }
  // The sum of code * trit.
  BITNET_DEVICE int of(int quarter) const {
    const int shift = quarter == 0 ? 0 : quarter == 1 ? 2 : 4;  // exact
    return (times[quarter] >> shift) - codes;
  }
};

BITNET_DEVICE float residual_of(const PackedMatrix& m, std::size_t at) {
  return m.residual == nullptr ? 0.0f : m.residual[at];
}
BITNET_DEVICE void store_output(const PackedMatrix& m, std::size_t at, float residual,
                                float value) {
  store_real(m.y, at, m.residual == nullptr ? value : residual + value);
}

// The weights of `count` packed rows from `row` on, as far as there are so many.
BITNET_DEVICE void prefetch_rows(const PackedMatrix& m, int depth, int row, int count) {
  const int rows = min(m.columns / kQuarters - row, count);
  if (threadIdx.x != 0 || rows <= 0) return;
  gpu::prefetch_to_l2(m.packed + static_cast<std::size_t>(row) * depth,
                      static_cast<std::size_t>(rows) * static_cast<std::size_t>(depth));
}

}  // namespace bitnet::cuda
