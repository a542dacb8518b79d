// SPDX-License-Identifier: MIT
// One warp per packed row, that is for four outputs: byte k of packed row r holds trit + 1 of rows
// r, r + N/4, r + 2N/4, r + 3N/4 in its bits 0-1, 2-3, 4-5, 6-7. Masked words go into dp4a as they
// are, and the sum of the codes takes the + 1 off again.
#include "cuda/packed_gemv.h"

#include "cuda/gpu.h"

namespace bitnet::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kVector = 16;  // bytes that a lane reads at once
constexpr int kQuarters = 4;

template <int kTokens>
__global__ void __launch_bounds__(kWarps* gpu::kWarpSize) packed_gemv_kernel(PackedGemv p) {
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int quarter = p.columns / kQuarters;
  const int row =
      static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / gpu::kWarpSize;
  if (row >= quarter) return;  // the whole warp; the block has no barrier
  const std::uint8_t* weights = p.packed + static_cast<std::size_t>(row) * p.depth;
  int sums[kTokens][kQuarters] = {};
  for (int k = lane * kVector; k < p.depth; k += gpu::kWarpSize * kVector) {
    const uint4 w = gpu::load_vector<uint4>(weights + k);
    const unsigned words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const int4 x = gpu::load_vector<int4>(p.codes + static_cast<std::size_t>(t) * p.depth + k);
      const int codes[4] = {x.x, x.y, x.z, x.w};
      int excess = 0;  // the sum of the codes
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        excess = __dp4a(0x01010101, codes[i], excess);
#pragma unroll
        for (int q = 0; q < kQuarters; ++q) {
          const int trits = static_cast<int>(words[i] >> (2 * q) & 0x03030303U);
          sums[t][q] = __dp4a(trits, codes[i], sums[t][q]);
        }
      }
#pragma unroll
      for (int q = 0; q < kQuarters; ++q) sums[t][q] -= excess;
    }
  }
  const float weight_scale = *p.weight_scale;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
#pragma unroll
    for (int q = 0; q < kQuarters; ++q) {
      const int sum = __reduce_add_sync(gpu::kWholeWarp, sums[t][q]);
      if (lane == q) {
        p.y[static_cast<std::size_t>(t) * p.columns + q * quarter + row] =
            p.act_scale[t] * weight_scale * static_cast<float>(sum);
      }
    }
  }
}

template <int kTokens>
cudaError_t launch_tokens(const PackedGemv& p, cudaStream_t stream) {
  const int blocks = (p.columns / kQuarters + kWarps - 1) / kWarps;
  return gpu::launch(packed_gemv_kernel<kTokens>, dim3(static_cast<unsigned>(blocks)),
                     dim3(kWarps * gpu::kWarpSize), 0, stream, p);
}

}  // namespace

cudaError_t packed_gemv(const PackedGemv& p, cudaStream_t stream) {
  if (p.columns < kQuarters || p.columns % kQuarters != 0 || p.depth < kVector ||
      p.depth % kVector != 0 || p.depth >= 1 << 24) {
    return cudaErrorInvalidValue;
  }
  switch (p.tokens) {
    case 1:
      return launch_tokens<1>(p, stream);
    case 2:
      return launch_tokens<2>(p, stream);
    case 3:
      return launch_tokens<3>(p, stream);
    case 4:
      return launch_tokens<4>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace bitnet::cuda
