// SPDX-License-Identifier: MIT
// Two kernels of one shape: a block keeps a tile of two operands (queries and dout, or keys and
// values) in shared memory and a warp the sums of 16 of its rows in registers, while tiles of the
// other side pass through a ring of two stages. The kernel for dk and dv works on transposed
// scores, whose rows are keys.
#include "cuda/attention_backward.h"

#include "cuda/attention_elements.cuh"
#include "cuda/attention_launch.h"
#include "cuda/attention_tiles.cuh"
#include "cuda/gpu.h"

namespace bitnet::cuda {
namespace {

constexpr int kPassing = 32;  // rows of a stage

template <int kWidth>
struct GradientTile {
  static constexpr int kDim = kWidth;
  static constexpr int kWarps = kDim > 128 ? 2 : 4;  // so that shared memory suffices
  static constexpr int kThreads = kWarps * gpu::kWarpSize;
  static constexpr int kRows = kWarps * 16;  // that stay
  // A warp has no registers for sums of 256 columns: a block computes half of them.
  static constexpr int kColumns = kDim > 128 ? 128 : kDim, kParts = kDim / kColumns;
  static constexpr int kStage = 2 * kPassing * kDim;  // elements: of one operand, then the other
  static constexpr std::size_t kSharedBytes =
      (2 * kRows * kDim + 2 * kStage) * sizeof(__nv_bfloat16) + 2 * kPassing * sizeof(float2);
  static_assert(kSharedBytes <= 99 << 10);  // of every device
};

// x: rows of a head, [B, H, room] in all; y: head; z: sequence. kRowLanes neighbouring lanes for each
// row, so that heads of 64 elements leave no lane idle.
constexpr int kRowThreads = 128, kRowLanes = 8, kRowsAtOnce = kRowThreads / kRowLanes;
__global__ void __launch_bounds__(kRowThreads) rows_kernel(AttentionRows op) {
  const int lane = static_cast<int>(threadIdx.x) % kRowLanes;
  const int token =
      static_cast<int>(blockIdx.x) * kRowsAtOnce + static_cast<int>(threadIdx.x) / kRowLanes;
  const std::size_t head = blockIdx.y, sequence = blockIdx.z;
  const bool inside = token < op.tokens;
  const std::size_t at = ((sequence * op.tokens + token) * op.heads + head) * op.head_dim;
  float delta = 0.0f;
#pragma unroll 1
  for (int e = lane * kElements; inside && e < op.head_dim; e += kRowLanes * kElements) {
    float out[kElements], dout[kElements];
    load_elements(op.out, at + e, out);
    load_elements(op.dout, at + e, dout);
#pragma unroll
    for (int i = 0; i < kElements; ++i) delta = fmaf(out[i], dout[i], delta);
  }
#pragma unroll
  for (int distance = kRowLanes / 2; distance > 0; distance /= 2) {
    delta += __shfl_xor_sync(gpu::kWholeWarp, delta, distance);
  }
  if (lane != 0) return;
  const std::size_t of_head = sequence * op.heads + head;
  const float logsumexp = inside ? op.logsumexp[of_head * op.tokens + token] * kLog2E : INFINITY;
  gpu::store_vector(op.rows + of_head * op.room + token, make_float2(logsumexp, delta));
}

// x: query head, so that those of a key/value head run together, and part of its columns; y: tiles
// of queries, the last, which sees the most keys, first; z: sequence.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads) query_gradient_kernel(AttentionBackward op) {
  constexpr int kDim = Tile::kDim, kRows = Tile::kRows, kThreads = Tile::kThreads;
  constexpr int kColumns = Tile::kColumns;
  BITNET_DYNAMIC_SHARED(__nv_bfloat16, queries);  // [kRows, kDim]
  __nv_bfloat16* const douts = queries + kRows * kDim;
  __nv_bfloat16* const stages = douts + kRows * kDim;
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int warp_row = static_cast<int>(threadIdx.x) / gpu::kWarpSize * 16;
  const int head = static_cast<int>(blockIdx.x) / Tile::kParts;
  const int first_column = static_cast<int>(blockIdx.x) % Tile::kParts * kColumns;
  const int sequence = static_cast<int>(blockIdx.z);
  const int first_query = static_cast<int>(gridDim.y - 1 - blockIdx.y) * kRows;
  const int end_key = min(first_query + kRows, op.tokens);
  const std::size_t of_head = static_cast<std::size_t>(sequence) * op.heads + head;
  const std::size_t of_kv_head =
      static_cast<std::size_t>(sequence) * op.kv_heads + head / (op.heads / op.kv_heads);
  const std::size_t head_size = static_cast<std::size_t>(op.tokens) * kDim;
  const auto start_stage = [&](int stage, int first_key) {
    __nv_bfloat16* const to = stages + stage * Tile::kStage;
    copy_rows<kDim, kPassing, kThreads>(to, op.k + of_kv_head * head_size, first_key, end_key);
    copy_rows<kDim, kPassing, kThreads>(to + kPassing * kDim, op.v + of_kv_head * head_size,
                                        first_key, end_key);
  };

  copy_rows<kDim, kRows, kThreads>(queries, op.q + of_head * head_size, first_query, op.tokens);
  copy_rows<kDim, kRows, kThreads>(douts, op.dout + of_head * head_size, first_query, op.tokens);
  start_stage(0, 0);
  gpu::commit_copies();
  const int query[2] = {first_query + warp_row + lane / 4, first_query + warp_row + lane / 4 + 8};
  const float2* const rows = op.rows + of_head * op.room;
  const float2 row[2] = {gpu::load_vector<float2>(rows + query[0]),
                         gpu::load_vector<float2>(rows + query[1])};
  Sums<kColumns> dq = {};
  for (int first_key = 0, stage = 0; first_key < end_key; first_key += kPassing, stage ^= 1) {
    gpu::wait_copies<0>();
    __syncthreads();  // the stage is there, and everybody has left the other
    if (first_key + kPassing < end_key) start_stage(stage ^ 1, first_key + kPassing);
    gpu::commit_copies();
    const __nv_bfloat16* const keys = stages + stage * Tile::kStage;
    Sums<kPassing> p, ds;
    multiply_rows<kDim, kPassing>(queries + warp_row * kDim, keys, p);
    multiply_rows<kDim, kPassing>(douts + warp_row * kDim, keys + kPassing * kDim, ds);
#pragma unroll
    for (int j = 0; j < kPassing / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first_key + j * 8 + lane % 4 * 2 + i % 2;
        const float weight =
            key <= query[i / 2] ? gpu::exp2_approximate(p[j][i] - row[i / 2].x) : 0.0f;
        ds[j][i] = weight * (ds[j][i] - row[i / 2].y);
      }
    }
    Weights<kPassing> weights;
    round_weights<kPassing>(ds, weights);
    add_weighted_rows<kDim, kPassing, kColumns>(weights, keys + first_column, dq);
  }
  const float factor[2] = {op.score_scale, op.score_scale};
  store_rows<kColumns>(
      dq, factor, op.dq,
      (static_cast<std::size_t>(sequence) * op.tokens * op.heads + head) * op.head_dim,
      static_cast<std::size_t>(op.heads) * op.head_dim, first_query + warp_row, op.tokens,
      first_column, op.head_dim);
}

// x: key/value head and part of its columns; y: tiles of keys, the first, which most queries see,
// first; z: sequence.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads) key_value_gradient_kernel(AttentionBackward op) {
  constexpr int kDim = Tile::kDim, kRows = Tile::kRows, kThreads = Tile::kThreads;
  constexpr int kColumns = Tile::kColumns;
  BITNET_DYNAMIC_SHARED(__nv_bfloat16, keys);  // [kRows, kDim]
  __nv_bfloat16* const values = keys + kRows * kDim;
  __nv_bfloat16* const stages = values + kRows * kDim;
  float2* const stage_rows = reinterpret_cast<float2*>(stages + 2 * Tile::kStage);
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int warp_row = static_cast<int>(threadIdx.x) / gpu::kWarpSize * 16;
  const int kv_head = static_cast<int>(blockIdx.x) / Tile::kParts;
  const int first_column = static_cast<int>(blockIdx.x) % Tile::kParts * kColumns;
  const int sequence = static_cast<int>(blockIdx.z);
  const int first_key = static_cast<int>(blockIdx.y) * kRows;
  const int group = op.heads / op.kv_heads;
  const std::size_t of_kv_head = static_cast<std::size_t>(sequence) * op.kv_heads + kv_head;
  const std::size_t head_size = static_cast<std::size_t>(op.tokens) * kDim;
  const auto start_stage = [&](int stage, int head, int first_query) {
    const std::size_t of_head = of_kv_head * group + head;
    __nv_bfloat16* const to = stages + stage * Tile::kStage;
    copy_rows<kDim, kPassing, kThreads>(to, op.q + of_head * head_size, first_query, op.tokens);
    copy_rows<kDim, kPassing, kThreads>(to + kPassing * kDim, op.dout + of_head * head_size,
                                        first_query, op.tokens);
    if (threadIdx.x < kPassing / 2) {  // two rows each
      const int at = static_cast<int>(threadIdx.x) * 2;
      gpu::copy_async16(stage_rows + stage * kPassing + at,
                        op.rows + of_head * op.room + first_query + at, true);
    }
  };

  copy_rows<kDim, kRows, kThreads>(keys, op.k + of_kv_head * head_size, first_key, op.tokens);
  copy_rows<kDim, kRows, kThreads>(values, op.v + of_kv_head * head_size, first_key, op.tokens);
  start_stage(0, 0, first_key);
  gpu::commit_copies();
  const int key[2] = {first_key + warp_row + lane / 4, first_key + warp_row + lane / 4 + 8};
  Sums<kColumns> dk = {}, dv = {};
  // The tiles of queries that see a key of the block, head after head.
  static_assert(kRows % kPassing == 0);
  for (int head = 0, tile = first_key, stage = 0; head < group; stage ^= 1) {
    gpu::wait_copies<0>();
    __syncthreads();  // the stage is there, and everybody has left the other
    const int first_query = tile + lane % 4 * 2;
    tile += kPassing;
    if (tile >= op.tokens) tile = first_key, ++head;
    if (head < group) start_stage(stage ^ 1, head, tile);
    gpu::commit_copies();
    const __nv_bfloat16* const queries = stages + stage * Tile::kStage;
    const __nv_bfloat16* const douts = queries + kPassing * kDim;
    Sums<kPassing> p, ds;
    multiply_rows<kDim, kPassing>(keys + warp_row * kDim, queries, p);
    multiply_rows<kDim, kPassing>(values + warp_row * kDim, douts, ds);
#pragma unroll
    for (int j = 0; j < kPassing / 8; ++j) {
      const float4 pair =
          gpu::load_vector<float4>(stage_rows + stage * kPassing + j * 8 + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int query = first_query + j * 8 + i % 2;
        const float logsumexp = i % 2 == 0 ? pair.x : pair.z;
        const float delta = i % 2 == 0 ? pair.y : pair.w;
        p[j][i] = key[i / 2] <= query ? gpu::exp2_approximate(p[j][i] - logsumexp) : 0.0f;
        ds[j][i] = p[j][i] * (ds[j][i] - delta);
      }
    }
    Weights<kPassing> weights;
    round_weights<kPassing>(p, weights);
    add_weighted_rows<kDim, kPassing, kColumns>(weights, douts + first_column, dv);
    round_weights<kPassing>(ds, weights);
    add_weighted_rows<kDim, kPassing, kColumns>(weights, queries + first_column, dk);
  }
  const std::size_t to =
      (static_cast<std::size_t>(sequence) * op.tokens * op.kv_heads + kv_head) * op.head_dim;
  const std::size_t stride = static_cast<std::size_t>(op.kv_heads) * op.head_dim;
  const float of_dk[2] = {kLn2, kLn2};  // the queries are times log2(e) / sqrt(E)
  const float of_dv[2] = {1.0f, 1.0f};
  store_rows<kColumns>(dk, of_dk, op.dk, to, stride, first_key + warp_row, op.tokens, first_column,
                       op.head_dim);
  store_rows<kColumns>(dv, of_dv, op.dv, to, stride, first_key + warp_row, op.tokens, first_column,
                       op.head_dim);
}

template <int kWidth>
cudaError_t launch_width(const AttentionBackward& op, cudaStream_t stream) {
  using Tile = GradientTile<kWidth>;
  const unsigned tiles = static_cast<unsigned>((op.tokens + Tile::kRows - 1) / Tile::kRows);
  const unsigned batch = static_cast<unsigned>(op.batch);
  const dim3 block(Tile::kThreads);
  cudaError_t error = gpu::allow_shared_bytes(key_value_gradient_kernel<Tile>, Tile::kSharedBytes);
  if (error != cudaSuccess) return error;
  error = gpu::allow_shared_bytes(query_gradient_kernel<Tile>, Tile::kSharedBytes);
  if (error != cudaSuccess) return error;
  error = gpu::launch(key_value_gradient_kernel<Tile>,
                      dim3(static_cast<unsigned>(op.kv_heads * Tile::kParts), tiles, batch), block,
                      Tile::kSharedBytes, stream, op);
  if (error != cudaSuccess) return error;
  return gpu::launch(query_gradient_kernel<Tile>,
                     dim3(static_cast<unsigned>(op.heads * Tile::kParts), tiles, batch), block,
                     Tile::kSharedBytes, stream, op);
}

}  // namespace

cudaError_t attention_rows(const AttentionRows& op, cudaStream_t stream) {
  constexpr int kMaxGridYZ = 65535;
  if (op.batch < 1 || op.batch > kMaxGridYZ || op.tokens < 1 || op.heads < 1 ||
      op.heads > kMaxGridYZ || op.head_dim < kElements || op.head_dim % kElements != 0 ||
      op.room != attention_row_room(op.tokens)) {
    return cudaErrorInvalidValue;
  }
  static_assert(attention_row_room(1) % kRowsAtOnce == 0);
  const dim3 grid(static_cast<unsigned>(op.room / kRowsAtOnce), static_cast<unsigned>(op.heads),
                  static_cast<unsigned>(op.batch));
  return gpu::launch(rows_kernel, grid, dim3(kRowThreads), 0, stream, op);
}

cudaError_t attention_backward(const AttentionBackward& op, cudaStream_t stream) {
  if (!is_attention_shape(op.batch, op.tokens, op.heads, op.kv_heads, op.head_dim) ||
      op.room != attention_row_room(op.tokens)) {
    return cudaErrorInvalidValue;
  }
  return launch_for_width(op.head_dim,
                          [&]<int kWidth>() { return launch_width<kWidth>(op, stream); });
}

}  // namespace bitnet::cuda
