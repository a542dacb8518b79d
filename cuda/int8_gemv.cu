// SPDX-License-Identifier: MIT
// One warp per output, for up to kInt8GemvTokens tokens.
#include "cuda/int8_gemv.h"

#include "cuda/gpu.h"

namespace bitnet::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * gpu::kWarpSize;
constexpr int kVector = 16;

// x: outputs, y: blocks of tokens. Lanes read 16 bytes at once, or, without kVectors, one.
template <int kTokens, bool kVectors>
__global__ void __launch_bounds__(kThreads) int8_gemv_kernel(Int8Gemv p) {
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int column =
      static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / gpu::kWarpSize;
  gpu::wait_for_predecessors();
  if (column >= p.columns) return;  // the whole warp; the block has no barrier
  const int first = static_cast<int>(blockIdx.y) * kTokens;
  const int count = min(kTokens, p.tokens - first);
  const std::int8_t* weights = p.weights + static_cast<std::size_t>(column) * p.depth;
  const std::int8_t* codes = p.codes + static_cast<std::size_t>(first) * p.depth;
  const auto token = [&](int t) {  // a token too many is not stored
    return codes + static_cast<std::size_t>(min(t, count - 1)) * p.depth;
  };
  int sums[kTokens] = {};
  if constexpr (kVectors) {
    for (int k = lane * kVector; k < p.depth; k += gpu::kWarpSize * kVector) {
      const int4 w = gpu::load_vector<int4>(weights + k);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const int4 x = gpu::load_vector<int4>(token(t) + k);
        sums[t] = __dp4a(w.x, x.x, sums[t]);
        sums[t] = __dp4a(w.y, x.y, sums[t]);
        sums[t] = __dp4a(w.z, x.z, sums[t]);
        sums[t] = __dp4a(w.w, x.w, sums[t]);
      }
    }
  } else {
    for (int k = lane; k < p.depth; k += gpu::kWarpSize) {
      const int w = weights[k];
#pragma unroll
      for (int t = 0; t < kTokens; ++t) sums[t] += w * token(t)[k];
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const int sum = __reduce_add_sync(gpu::kWholeWarp, sums[t]);
    if (lane == t && t < count) {
      p.y[static_cast<std::size_t>(first + t) * p.columns + column] =
          p.act_scale[first + t] * p.row_scale[column] * static_cast<float>(sum);
    }
  }
}

template <int kTokens>
cudaError_t launch_tokens(const Int8Gemv& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((p.columns + kWarps - 1) / kWarps),
                  static_cast<unsigned>((p.tokens + kTokens - 1) / kTokens));
  return gpu::launch_overlapping(
      p.depth % kVector == 0 ? int8_gemv_kernel<kTokens, true> : int8_gemv_kernel<kTokens, false>,
      grid, dim3(kThreads), 0, stream, p);
}

}  // namespace

cudaError_t int8_gemv(const Int8Gemv& p, cudaStream_t stream) {
  if (p.tokens < 1 || p.columns < 1 || p.depth < 1 || p.depth > 1 << 16) {
    return cudaErrorInvalidValue;
  }
  if (p.tokens == 1) return launch_tokens<1>(p, stream);
  if (p.tokens == 2) return launch_tokens<2>(p, stream);
  if (p.tokens <= 4) return launch_tokens<4>(p, stream);
  return launch_tokens<kInt8GemvTokens>(p, stream);
}

}  // namespace bitnet::cuda
