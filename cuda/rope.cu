// SPDX-License-Identifier: MIT
// Block (row, part) turns a part of a token's heads: one thread for four pairs; `quads` such fours
// in a head.
#include "cuda/rope.h"

#include <algorithm>

#include "cuda/gpu.h"
#include "cuda/position.cuh"
#include "cuda/quads.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kMaxThreads = 256;

// Turns (a, b) to (a cosine - b sine, b cosine + a sine).
BITNET_DEVICE void turn(float& a, float& b, float cosine, float sine) {
  const float turned = fmaf(a, cosine, 0.0f - b * sine);
  b = fmaf(b, cosine, a * sine);
  a = turned;
}

template <typename T>
__global__ void __launch_bounds__(kMaxThreads) rope_kernel(Rope op, int quads, bool aligned) {
  const int half = op.head_dim / 2;
  const int index = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const int head = index / quads, pair = index % quads * kQuad, left = half - pair;
  if (head >= op.heads) return;
  const int row = static_cast<int>(blockIdx.x);
  const std::int64_t position = position_of(op.first) + row % op.tokens;
  const float* angles = op.table + position * op.head_dim + pair;
  T* x = static_cast<T*>(op.x.data) +
         (static_cast<std::int64_t>(row) * op.heads + head) * op.head_dim + pair;
  float4 a = load_quad(x, left, aligned), b = load_quad(x + half, left, aligned);
  const float4 cosine = load_quad(angles, left, aligned);
  const float4 sine = load_quad(angles + half, left, aligned);
  turn(a.x, b.x, cosine.x, op.sign * sine.x);
  turn(a.y, b.y, cosine.y, op.sign * sine.y);
  turn(a.z, b.z, cosine.z, op.sign * sine.z);
  turn(a.w, b.w, cosine.w, op.sign * sine.w);
  store_quad(x, left, aligned, a);
  store_quad(x + half, left, aligned, b);
}

}  // namespace

cudaError_t rope(const Rope& op, cudaStream_t stream) {
  if (op.rows < 1 || op.tokens < 1 || op.heads < 1 || op.head_dim < 2 || op.head_dim % 2 != 0) {
    return cudaErrorInvalidValue;
  }
  const int half = op.head_dim / 2, quads = quads_in(half), all = op.heads * quads;
  const int warps = (all + gpu::kWarpSize - 1) / gpu::kWarpSize;
  const int threads = std::min(warps * gpu::kWarpSize, kMaxThreads);
  const int parts = (all + threads - 1) / threads;
  return gpu::launch(op.x.bf16 ? rope_kernel<__nv_bfloat16> : rope_kernel<float>,
                     dim3(static_cast<unsigned>(op.rows), static_cast<unsigned>(parts)),
                     dim3(static_cast<unsigned>(threads)), 0, stream, op, quads,
                     half % kQuad == 0 && quads_aligned(op.x, op.table));
}

}  // namespace bitnet::cuda
