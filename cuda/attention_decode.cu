// SPDX-License-Identifier: MIT
// A key's row lies across kLanes neighbouring lanes, eight elements each. A block reads all keys and
// values of its stretch at once; its threads first compute the scores, key by key; then each warp
// the softmax of a query head; then each group of lanes sums its share of the values, and the
// groups' sums are folded in order.
#include "cuda/attention_decode.h"

#include "cuda/attention_elements.cuh"
#include "cuda/gpu.h"
#include "cuda/position.cuh"
#include "cuda/reduce.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * gpu::kWarpSize;
constexpr int kMaxHeadDim = 256;
constexpr float kLn2 = 0.693147181f;

BITNET_DEVICE float warp_max(float x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    x = fmaxf(x, __shfl_xor_sync(gpu::kWholeWarp, x, distance));
  }
  return x;
}

// The keys that token `row` (of all sequences) sees.
template <typename Input>
BITNET_DEVICE int keys_seen(const AttentionDecode<Input>& op, int row) {
  return position_of(op.first_position) + row % op.queries + 1;
}

// Sums values[i] over the lanes that differ in the bits kFrom, kFrom / 2, … kTo: halves of the lanes
// take halves of the values, while there are both. The sums are in the first values then; returns
// which of the values the first one was.
template <int kFrom, int kTo, int kValues>
BITNET_DEVICE int add_lanes(float (&values)[kValues]) {
  int first = 0, count = kValues;
#pragma unroll
  for (int distance = kFrom; distance >= kTo; distance /= 2) {
    if (count == 1) {
      values[0] += __shfl_xor_sync(gpu::kWholeWarp, values[0], distance);
      continue;
    }
    count /= 2;
    const bool upper = (static_cast<int>(threadIdx.x) & distance) != 0;
#pragma unroll
    for (int i = 0; i < kValues / 2; ++i) {
      if (i >= count) continue;
      const float given = upper ? values[i] : values[i + count];
      const float kept = upper ? values[i + count] : values[i];
      values[i] = kept + __shfl_xor_sync(gpu::kWholeWarp, given, distance);
    }
    if (upper) first += count;
  }
  return first;
}

// Per query head the largest score of the stretch and the sum of 2^(score - largest), which replace
// the scores; scores of keys that are not there are -infinity. A warp per head, a lane per key.
template <int kHeads, typename Input>
BITNET_DEVICE void softmax_stretch(const AttentionDecode<Input>& op,
                                   float (&scores)[kHeads * kDecodeKeys], int heads,
                                   std::size_t first_head) {
  static_assert(kDecodeKeys == gpu::kWarpSize && kHeads <= kWarps);
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int head = static_cast<int>(threadIdx.x) / gpu::kWarpSize;
  if (head >= heads) return;  // the whole warp
  float& score = scores[head * kDecodeKeys + lane];
  const float largest = warp_max(score);
  score = gpu::exp2_approximate(score - largest);
  const float sum = warp_sum(score);
  if (lane == 0) {
    op.partial_sums[(first_head + head) * op.stretches + blockIdx.x] = make_float2(largest, sum);
  }
}

// x: stretch of keys; y: key/value head and kHeads of its query heads; z: token of all sequences.
template <typename Input, int kLanes, int kHeads>
__global__ void __launch_bounds__(kThreads) decode_kernel(AttentionDecode<Input> op) {
  constexpr int kKeysAtOnce = kThreads / kLanes;    // one for each group of lanes
  constexpr int kGroups = gpu::kWarpSize / kLanes;  // of a warp
  constexpr int kRounds = kDecodeKeys / kKeysAtOnce;
  constexpr int kWidth = kLanes * kElements;
  static_assert(kRounds * kKeysAtOnce == kDecodeKeys && kLanes % kHeads == 0);
  BITNET_SHARED_ARRAY(float, scores, kHeads* kDecodeKeys);
  BITNET_SHARED_ARRAY(float, sums, kWarps* kHeads* kWidth);  // of the warps
  const int row = static_cast<int>(blockIdx.z), sequence = row / op.queries;
  const int group = op.heads / op.kv_heads, parts = (group + kHeads - 1) / kHeads;
  const int kv_head = static_cast<int>(blockIdx.y) / parts;
  const int within = static_cast<int>(blockIdx.y) % parts * kHeads;
  const int heads = min(kHeads, group - within);
  const std::size_t first_head =
      static_cast<std::size_t>(row) * op.heads + kv_head * group + within;
  const int thread = static_cast<int>(threadIdx.x);
  const int element = thread % kLanes * kElements;
  const bool inside = element < op.head_dim;
  const int first_key = static_cast<int>(blockIdx.x) * kDecodeKeys;
  const std::size_t key_stride = static_cast<std::size_t>(op.kv_heads) * op.head_dim;
  const std::size_t kv_at =
      (static_cast<std::size_t>(sequence) * op.keys + first_key) * key_stride +
      static_cast<std::size_t>(kv_head) * op.head_dim + element;

  gpu::wait_for_predecessors();
  float q[kHeads][kElements] = {};
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (inside && h < heads) load_elements(op.q + (first_head + h) * op.head_dim + element, q[h]);
  }
  const int keys = min(keys_seen(op, row) - first_key, kDecodeKeys);
  if (keys <= 0) return;  // the whole block
  float k[kRounds][kElements] = {}, v[kRounds][kElements] = {};
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int key = round * kKeysAtOnce + thread / kLanes;
    if (inside && key < keys) load_elements(op.k + kv_at + key * key_stride, k[round]);
  }
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int key = round * kKeysAtOnce + thread / kLanes;
    if (inside && key < keys) load_elements(op.v + kv_at + key * key_stride, v[round]);
  }
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
#pragma unroll
    for (int i = 0; i < kElements; ++i) q[h][i] *= op.score_scale;
  }
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int key = round * kKeysAtOnce + thread / kLanes;
    float score[kHeads] = {};
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int i = 0; i < kElements; ++i) score[h] = fmaf(q[h][i], k[round][i], score[h]);
    }
    const int head = add_lanes<kLanes / 2, 1>(score);
    if (thread % (kLanes / kHeads) == 0) {
      scores[head * kDecodeKeys + key] = key < keys ? score[0] : -INFINITY;
    }
  }
  __syncthreads();
  softmax_stretch<kHeads>(op, scores, heads, first_head);
  __syncthreads();

  float sum[kHeads * kElements] = {};
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int key = round * kKeysAtOnce + thread / kLanes;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const float weight = scores[h * kDecodeKeys + key];
#pragma unroll
      for (int i = 0; i < kElements; ++i) {
        sum[h * kElements + i] = fmaf(weight, v[round][i], sum[h * kElements + i]);
      }
    }
  }
  // The warp's sum of each head and element, in one of its groups of lanes.
  const int first = add_lanes<gpu::kWarpSize / 2, kLanes>(sum);
#pragma unroll
  for (int i = 0; i < kHeads * kElements / kGroups; i += 2) {
    const int h = (first + i) / kElements, e = element + (first + i) % kElements;
    gpu::store_vector(sums + (thread / gpu::kWarpSize * kHeads + h) * kWidth + e,
                      make_float2(sum[i], sum[i + 1]));
  }
  __syncthreads();
  for (int i = thread; i < heads * op.head_dim; i += kThreads) {
    const int h = i / op.head_dim, e = i % op.head_dim;
    float total = sums[h * kWidth + e];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) total += sums[(warp * kHeads + h) * kWidth + e];
    op.partial_out[((first_head + h) * op.stretches + blockIdx.x) * op.head_dim + e] = total;
  }
}

// One block per query head of a token. Each warp folds every kFoldWarps-th stretch, then the warps'
// results are folded in order.
constexpr int kFoldWarps = 8;
template <typename Input>
__global__ void __launch_bounds__(kFoldWarps* gpu::kWarpSize)
    fold_kernel(AttentionDecode<Input> op) {
  BITNET_SHARED_ARRAY(float, sums, kFoldWarps* kMaxHeadDim);
  BITNET_SHARED_ARRAY(float, weights, kFoldWarps);
  const int head = static_cast<int>(blockIdx.x), row = static_cast<int>(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % gpu::kWarpSize, warp = thread / gpu::kWarpSize;
  gpu::wait_for_predecessors();
  const int stretches = (keys_seen(op, row) + kDecodeKeys - 1) / kDecodeKeys;
  const std::size_t at = (static_cast<std::size_t>(row) * op.heads + head) * op.stretches;
  const float2* const partial = op.partial_sums + at;
  float largest = -INFINITY;
  for (int i = lane; i < stretches; i += gpu::kWarpSize) {
    largest = fmaxf(largest, gpu::load_vector<float2>(partial + i).x);
  }
  largest = warp_max(largest);

  constexpr int kQuads = kMaxHeadDim / (4 * gpu::kWarpSize);
  float4 sum[kQuads] = {};
  float weight_sum = 0.0f;
#pragma unroll 2
  for (int i = warp; i < stretches; i += kFoldWarps) {
    const float2 of_stretch = gpu::load_vector<float2>(partial + i);
    const float weight = gpu::exp2_approximate(of_stretch.x - largest);
    weight_sum = fmaf(weight, of_stretch.y, weight_sum);
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) {
      const int e = (quad * gpu::kWarpSize + lane) * 4;
      if (e >= op.head_dim) continue;
      const float4 x = gpu::load_vector<float4>(op.partial_out + (at + i) * op.head_dim + e);
      sum[quad].x = fmaf(weight, x.x, sum[quad].x);
      sum[quad].y = fmaf(weight, x.y, sum[quad].y);
      sum[quad].z = fmaf(weight, x.z, sum[quad].z);
      sum[quad].w = fmaf(weight, x.w, sum[quad].w);
    }
  }
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    gpu::store_vector(sums + warp * kMaxHeadDim + (quad * gpu::kWarpSize + lane) * 4, sum[quad]);
  }
  if (lane == 0) weights[warp] = weight_sum;
  __syncthreads();
  float total_weight = weights[0];
#pragma unroll
  for (int w = 1; w < kFoldWarps; ++w) total_weight += weights[w];
  if (thread < op.head_dim) {
    float total = sums[thread];
#pragma unroll
    for (int w = 1; w < kFoldWarps; ++w) total += sums[w * kMaxHeadDim + thread];
    op.out[(static_cast<std::size_t>(row) * op.heads + head) * op.head_dim + thread] =
        total / total_weight;
  }
  if (thread == 0 && op.logsumexp != nullptr) {
    const std::size_t sequence = static_cast<std::size_t>(row / op.queries);
    op.logsumexp[(sequence * op.heads + head) * op.queries + row % op.queries] =
        fmaf(largest, kLn2, logf(total_weight));
  }
}
static_assert(kFoldWarps * gpu::kWarpSize >= kMaxHeadDim);

template <typename Input, int kLanes, int kHeads>
cudaError_t launch_heads(const AttentionDecode<Input>& op, cudaStream_t stream) {
  const int parts = (op.heads / op.kv_heads + kHeads - 1) / kHeads;
  const dim3 grid(static_cast<unsigned>(op.stretches), static_cast<unsigned>(op.kv_heads * parts),
                  static_cast<unsigned>(op.batch * op.queries));
  return gpu::launch_overlapping(decode_kernel<Input, kLanes, kHeads>, grid, dim3(kThreads), 0,
                                 stream, op);
}

template <typename Input, int kLanes>
cudaError_t launch_lanes(const AttentionDecode<Input>& op, cudaStream_t stream) {
  if (op.heads == op.kv_heads) return launch_heads<Input, kLanes, 1>(op, stream);
  return launch_heads<Input, kLanes, 4>(op, stream);
}

template <typename Input>
cudaError_t launch_stretches(const AttentionDecode<Input>& op, cudaStream_t stream) {
  if (op.head_dim <= 64) return launch_lanes<Input, 8>(op, stream);
  if (op.head_dim <= 128) return launch_lanes<Input, 16>(op, stream);
  return launch_lanes<Input, 32>(op, stream);
}

}  // namespace

template <typename Input>
cudaError_t attention_decode(const AttentionDecode<Input>& op, cudaStream_t stream) {
  constexpr int kMaxGridYZ = 65535;
  if (op.batch < 1 || op.queries < 1 || op.stretches < 1 || op.kv_heads < 1 ||
      op.heads < op.kv_heads || op.heads % op.kv_heads != 0 || op.heads > kMaxGridYZ ||
      op.head_dim < 16 || op.head_dim % 16 != 0 || op.head_dim > kMaxHeadDim ||
      op.batch > kMaxGridYZ / op.queries) {
    return cudaErrorInvalidValue;
  }
  const cudaError_t error = launch_stretches(op, stream);
  if (error != cudaSuccess) return error;
  return gpu::launch_overlapping(
      fold_kernel<Input>,
      dim3(static_cast<unsigned>(op.heads), static_cast<unsigned>(op.batch * op.queries)),
      dim3(kFoldWarps * gpu::kWarpSize), 0, stream, op);
}

template cudaError_t attention_decode(const AttentionDecode<float>&, cudaStream_t);
template cudaError_t attention_decode(const AttentionDecode<__half>&, cudaStream_t);

}  // namespace bitnet::cuda
