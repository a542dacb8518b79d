// SPDX-License-Identifier: MIT
// A block computes 64 queries of one head, a warp 16 of them. One tile of keys and one of values
// are in shared memory: values arrive during the scores and their softmax, the next keys during the
// product with the values.
#include "cuda/attention_forward.h"

#include "cuda/attention_launch.h"
#include "cuda/attention_tiles.cuh"
#include "cuda/gpu.h"
#include "cuda/position.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * gpu::kWarpSize;
constexpr int kQueries = kWarps * 16, kKeys = 64;

template <int kDim>
constexpr std::size_t kSharedBytes = (kQueries + 2 * kKeys) * kDim * sizeof(__nv_bfloat16);
static_assert(kSharedBytes<256> <= 99 << 10);  // of every device

// Over the four lanes that share a row.
BITNET_DEVICE float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(gpu::kWholeWarp, x, 1));
  return fmaxf(x, __shfl_xor_sync(gpu::kWholeWarp, x, 2));
}
BITNET_DEVICE float row_sum(float x) {
  x += __shfl_xor_sync(gpu::kWholeWarp, x, 1);
  return x + __shfl_xor_sync(gpu::kWholeWarp, x, 2);
}

// Keys behind the row's position get -infinity.
BITNET_DEVICE void mask_scores(int first_key, const int (&position)[2], Sums<kKeys>& scores) {
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = first_key + j * 8 + lane % 4 * 2 + i % 2;
      if (key > position[i / 2]) scores[j][i] = -INFINITY;
    }
  }
}

// Of the thread's two rows: the largest score so far, and its own share of the sum of 2^(score -
// largest).
struct RowState {
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
};

// scores -> 2^(score - largest), and what was summed so far to the same base.
template <int kDim>
BITNET_DEVICE void online_softmax(Sums<kKeys>& scores, RowState& rows, Sums<kDim>& out) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = rows.largest[half];
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
      largest = fmaxf(largest, fmaxf(scores[j][half * 2], scores[j][half * 2 + 1]));
    }
    largest = row_max(largest);
    const float rescale = gpu::exp2_approximate(rows.largest[half] - largest);
    float sum = rows.sum[half] * rescale;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int i = half * 2; i < half * 2 + 2; ++i) {
        scores[j][i] = gpu::exp2_approximate(scores[j][i] - largest);
        sum += scores[j][i];
      }
    }
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      out[j][half * 2] *= rescale;
      out[j][half * 2 + 1] *= rescale;
    }
    rows.largest[half] = largest;
    rows.sum[half] = sum;
  }
}

// x: head, so that those of a key/value head run together; y: tiles of queries, the last, which
// sees the most keys, first; z: sequence.
// Without a number of blocks that it must leave room for, ptxas aims at more than fit and spills.
template <int kDim>
__global__ void __launch_bounds__(kThreads, kDim <= 128 ? 3 : 2)
    attention_forward_kernel(AttentionForward op) {
  BITNET_DYNAMIC_SHARED(__nv_bfloat16, queries);  // [kQueries, kDim]
  __nv_bfloat16* const keys = queries + kQueries * kDim;
  __nv_bfloat16* const values = keys + kKeys * kDim;
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int warp_row = static_cast<int>(threadIdx.x) / gpu::kWarpSize * 16;
  const int head = static_cast<int>(blockIdx.x), sequence = static_cast<int>(blockIdx.z);
  const int first_query = static_cast<int>(gridDim.y - 1 - blockIdx.y) * kQueries;
  const int first_position = position_of(op.first_position);
  const int end_key = first_position + min(first_query + kQueries, op.queries);
  const int kv_head = head / (op.heads / op.kv_heads);
  const std::size_t of_head = static_cast<std::size_t>(sequence) * op.heads + head;
  const std::size_t kv_rows =
      (static_cast<std::size_t>(sequence) * op.kv_heads + kv_head) * op.room;
  const __nv_bfloat16 *k = op.k + kv_rows * kDim, *v = op.v + kv_rows * kDim;

  copy_rows<kDim, kQueries, kThreads>(queries, op.q + of_head * op.queries * kDim, first_query,
                                      op.queries);
  copy_rows<kDim, kKeys, kThreads>(keys, k, 0, end_key);
  gpu::commit_copies();
  const int warp_position = first_position + first_query + warp_row;
  const int position[2] = {warp_position + lane / 4, warp_position + lane / 4 + 8};
  RowState rows;
  Sums<kDim> out = {};
  for (int first_key = 0; first_key < end_key; first_key += kKeys) {
    gpu::wait_copies<0>();
    __syncthreads();  // the keys are there, and everybody has left the values
    copy_rows<kDim, kKeys, kThreads>(values, v, first_key, end_key);
    gpu::commit_copies();
    Sums<kKeys> scores;
    multiply_rows<kDim, kKeys>(queries + warp_row * kDim, keys, scores);
    if (first_key + kKeys - 1 > warp_position) mask_scores(first_key, position, scores);
    online_softmax<kDim>(scores, rows, out);
    Weights<kKeys> weights;
    round_weights<kKeys>(scores, weights);
    gpu::wait_copies<0>();
    __syncthreads();  // the values are there, and everybody has left the keys
    if (first_key + kKeys < end_key) {
      copy_rows<kDim, kKeys, kThreads>(keys, k, first_key + kKeys, end_key);
    }
    gpu::commit_copies();
    add_weighted_rows<kDim, kKeys, kDim>(weights, values, out);
  }

  const float sum[2] = {row_sum(rows.sum[0]), row_sum(rows.sum[1])};
  const float factor[2] = {1.0f / sum[0], 1.0f / sum[1]};
  store_rows<kDim>(
      out, factor, op.out,
      (static_cast<std::size_t>(sequence) * op.queries * op.heads + head) * op.head_dim,
      static_cast<std::size_t>(op.heads) * op.head_dim, first_query + warp_row, op.queries, 0,
      op.head_dim);
  if (op.logsumexp == nullptr || lane % 4 != 0) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = first_query + warp_row + half * 8 + lane / 4;
    if (query >= op.queries) continue;
    op.logsumexp[of_head * op.queries + query] = fmaf(rows.largest[half], kLn2, logf(sum[half]));
  }
}

template <int kDim>
cudaError_t launch_width(const AttentionForward& op, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(op.heads),
                  static_cast<unsigned>((op.queries + kQueries - 1) / kQueries),
                  static_cast<unsigned>(op.batch));
  const cudaError_t error =
      gpu::allow_shared_bytes(attention_forward_kernel<kDim>, kSharedBytes<kDim>);
  if (error != cudaSuccess) return error;
  return gpu::launch(attention_forward_kernel<kDim>, grid, dim3(kThreads), kSharedBytes<kDim>,
                     stream, op);
}

}  // namespace

cudaError_t attention_forward(const AttentionForward& op, cudaStream_t stream) {
  if (!is_attention_shape(op.batch, op.queries, op.heads, op.kv_heads, op.head_dim)) {
    return cudaErrorInvalidValue;
  }
  return launch_for_width(op.head_dim,
                          [&]<int kWidth>() { return launch_width<kWidth>(op, stream); });
}

}  // namespace bitnet::cuda
