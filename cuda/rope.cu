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

// Four pairs: `a` of the first half of a head, `b` of the second.
struct Pairs {
  float4 a, b;
};

template <typename T>
BITNET_DEVICE Pairs load_pairs(const T* x, int half, int left, bool aligned) {
  return {load_quad(x, left, aligned), load_quad(x + half, left, aligned)};
}
template <typename T>
BITNET_DEVICE void store_pairs(T* x, int half, int left, bool aligned, const Pairs& pairs) {
  store_quad(x, left, aligned, pairs.a);
  store_quad(x + half, left, aligned, pairs.b);
}

// By the angles of cosines `angles.a` and sines `angles.b`.
BITNET_DEVICE void turn(Pairs& x, const Pairs& angles, float sign) {
  turn(x.a.x, x.b.x, angles.a.x, sign * angles.b.x);
  turn(x.a.y, x.b.y, angles.a.y, sign * angles.b.y);
  turn(x.a.z, x.b.z, angles.a.z, sign * angles.b.z);
  turn(x.a.w, x.b.w, angles.a.w, sign * angles.b.w);
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
  Pairs pairs = load_pairs(x, half, left, aligned);
  turn(pairs, load_pairs(angles, half, left, aligned), op.sign);
  store_pairs(x, half, left, aligned, pairs);
}

// Block (row, part): threads for the pairs of all heads of q and k, then for the quads of v.
template <typename Cache>
__global__ void __launch_bounds__(kMaxThreads)
    rope_append_kernel(RopeAppend<Cache> op, int quads, bool aligned) {
  const int half = op.head_dim / 2, turned = (op.heads + op.kv_heads) * quads;
  const int kv_width = op.kv_heads * op.head_dim;
  const int index = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const std::int64_t row = blockIdx.x;
  gpu::wait_for_predecessors();
  const std::int64_t position = position_of(op.first) + row;
  const std::int64_t cache_row = position * kv_width;
  if (index >= turned) {
    const int at = (index - turned) * kQuad, left = kv_width - at;
    if (left <= 0) return;
    store_quad(op.values + cache_row + at, left, aligned,
               load_quad(op.v + row * kv_width + at, left, aligned));
    return;
  }
  const int head = index / quads, pair = index % quads * kQuad, left = half - pair;
  const int kv_head = head - op.heads;
  float* const x = kv_head < 0 ? op.q + (row * op.heads + head) * op.head_dim + pair
                               : op.k + row * kv_width + kv_head * op.head_dim + pair;
  Pairs pairs = load_pairs(x, half, left, aligned);
  turn(pairs, load_pairs(op.table + position * op.head_dim + pair, half, left, aligned), 1.0f);
  store_pairs(x, half, left, aligned, pairs);
  if (kv_head < 0) return;
  store_pairs(op.keys + cache_row + kv_head * op.head_dim + pair, half, left, aligned, pairs);
}

// Blocks and threads for so many threads in each row.
struct Grid {
  dim3 blocks, threads;
};
Grid grid_of(int rows, int threads_of_row) {
  const int warps = (threads_of_row + gpu::kWarpSize - 1) / gpu::kWarpSize;
  const int threads = std::min(warps * gpu::kWarpSize, kMaxThreads);
  const int parts = (threads_of_row + threads - 1) / threads;
  return {dim3(static_cast<unsigned>(rows), static_cast<unsigned>(parts)),
          dim3(static_cast<unsigned>(threads))};
}

}  // namespace

cudaError_t rope(const Rope& op, cudaStream_t stream) {
  if (op.rows < 1 || op.tokens < 1 || op.heads < 1 || op.head_dim < 2 || op.head_dim % 2 != 0) {
    return cudaErrorInvalidValue;
  }
  const int half = op.head_dim / 2, quads = quads_in(half);
  const Grid grid = grid_of(op.rows, op.heads * quads);
  return gpu::launch(op.x.bf16 ? rope_kernel<__nv_bfloat16> : rope_kernel<float>, grid.blocks,
                     grid.threads, 0, stream, op, quads,
                     half % kQuad == 0 && quads_aligned(op.x, op.table));
}

template <typename Cache>
cudaError_t rope_append(const RopeAppend<Cache>& op, cudaStream_t stream) {
  if (op.tokens < 1 || op.heads < 1 || op.kv_heads < 1 || op.head_dim < 2 || op.head_dim % 2 != 0) {
    return cudaErrorInvalidValue;
  }
  const int half = op.head_dim / 2, quads = quads_in(half);
  const Grid grid =
      grid_of(op.tokens, (op.heads + op.kv_heads) * quads + quads_in(op.kv_heads * op.head_dim));
  return gpu::launch_overlapping(
      rope_append_kernel<Cache>, grid.blocks, grid.threads, 0, stream, op, quads,
      half % kQuad == 0 && quads_aligned(op.q, op.k, op.v, op.keys, op.values, op.table));
}

template cudaError_t rope_append(const RopeAppend<float>&, cudaStream_t);
template cudaError_t rope_append(const RopeAppend<__half>&, cudaStream_t);

}  // namespace bitnet::cuda
