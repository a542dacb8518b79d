// SPDX-License-Identifier: MIT
// Forward: a thread for four columns of a row. Backward: a block owns some columns of one row of the
// table and walks the tokens in ascending order, so that nothing is added by atomics and each sum
// has the order of the rows.
#include "cuda/embedding.h"

#include "cuda/gpu.h"
#include "cuda/quads.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

// Quads of columns go along x, rows along y, whose blocks take turns when there are more.
constexpr std::int64_t kMostRowBlocks = 8192;

template <typename Table>
__global__ void __launch_bounds__(kThreads) embedding_kernel(Embedding<Table> op, bool aligned) {
  const std::int64_t column =
      (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kQuad;
  const std::int64_t left = op.width - column;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.y) * blockDim.y;
  std::int64_t row = static_cast<std::int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
  for (; row < op.rows; row += step) {
    const std::int64_t token = op.tokens[row];
    const float nan = __uint_as_float(0x7fc00000U);
    float4 x = make_float4(nan, nan, nan, nan);
    if (token >= 0 && token < op.vocabulary) {
      x = load_quad(op.table + token * op.width + column, left, aligned);
    }
    store_quad(op.y + row * op.width + column, left, aligned, x);
  }
}

constexpr int kBackwardThreads = 128;
constexpr int kBackwardWarps = kBackwardThreads / gpu::kWarpSize;
constexpr int kSearched = 1024;  // tokens that are looked through at once, 32 by 32
constexpr int kVotes = kSearched / gpu::kWarpSize;
static_assert(kVotes == gpu::kWarpSize);
constexpr int kAhead = 8;  // rows of dy that a thread reads at once

// Into `found` the places of `token` among the `count` tokens, ascending; all threads get their
// number. `found` is written between two barriers, so that the next call may come at once.
BITNET_DEVICE int find_token(const std::int32_t* tokens, int count, std::int32_t token,
                             int* found) {
  BITNET_SHARED_ARRAY(std::uint32_t, votes, kVotes);
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / gpu::kWarpSize;
#pragma unroll
  for (int i = warp; i < kVotes; i += kBackwardWarps) {
    const int at = i * gpu::kWarpSize + lane;
    const bool same = at < count && tokens[at] == token;
    const std::uint32_t vote = __ballot_sync(gpu::kWholeWarp, same ? 1 : 0);
    if (lane == 0) votes[i] = vote;
  }
  __syncthreads();
  // Lane i: how many are found up to and with the tokens of votes[i].
  int up_to = __popc(votes[lane]);
#pragma unroll
  for (int distance = 1; distance < gpu::kWarpSize; distance *= 2) {
    const int before = __shfl_up_sync(gpu::kWholeWarp, up_to, static_cast<unsigned>(distance));
    if (lane >= distance) up_to += before;
  }
#pragma unroll
  for (int i = warp; i < kVotes; i += kBackwardWarps) {
    const std::uint32_t vote = votes[i];
    const int first = __shfl_sync(gpu::kWholeWarp, up_to, i) - __popc(vote);
    const std::uint32_t before = vote & ((1U << lane) - 1);
    if ((vote >> lane & 1U) != 0) found[first + __popc(before)] = i * gpu::kWarpSize + lane;
  }
  const int number = __shfl_sync(gpu::kWholeWarp, up_to, gpu::kWarpSize - 1);
  __syncthreads();  // `found` is whole, and `votes` may be written again
  return number;
}

BITNET_DEVICE float4 sum_of(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// A block for a token and for kBackwardThreads quads of columns.
__global__ void __launch_bounds__(kBackwardThreads)
    embedding_backward_kernel(EmbeddingBackward op, bool aligned) {
  BITNET_SHARED_ARRAY(int, found, kSearched);
  const std::int64_t column =
      (static_cast<std::int64_t>(blockIdx.y) * kBackwardThreads + threadIdx.x) * kQuad;
  const std::int64_t left = op.width - column;
  const auto token = static_cast<std::int32_t>(blockIdx.x);
  float* to = op.dtable + token * op.width + column;
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  bool any = false;
  for (std::int64_t first = 0; first < op.rows; first += kSearched) {
    const auto count = static_cast<int>(min(op.rows - first, static_cast<std::int64_t>(kSearched)));
    const int number = find_token(op.tokens + first, count, token, found);
    if (number > 0 && !any) sum = load_quad(to, left, aligned);
    any = any || number > 0;
    const float* dy = op.dy + first * op.width + column;
    int i = 0;
    for (; i + kAhead <= number; i += kAhead) {
      float4 rows[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j)
        rows[j] = load_quad(dy + found[i + j] * op.width, left, aligned);
#pragma unroll
      for (int j = 0; j < kAhead; ++j) sum = sum_of(sum, rows[j]);
    }
    for (; i < number; ++i) sum = sum_of(sum, load_quad(dy + found[i] * op.width, left, aligned));
  }
  if (any) store_quad(to, left, aligned, sum);
}

// Rows at these addresses are made of whole, aligned quads.
template <typename... T>
bool rows_aligned(std::int64_t width, const T*... x) {
  return width % kQuad == 0 && quads_aligned(x...);
}

bool fits(std::int64_t rows, std::int64_t vocabulary, std::int64_t width) {
  return rows >= 1 && vocabulary >= 1 && width >= 1 && rows >> 31 == 0 && vocabulary >> 31 == 0;
}

}  // namespace

template <typename Table>
cudaError_t embedding(const Embedding<Table>& op, cudaStream_t stream) {
  if (!fits(op.rows, op.vocabulary, op.width)) return cudaErrorInvalidValue;
  const std::int64_t quads = quads_in(op.width);
  unsigned across = 1;  // threads along a row: narrow rows share a block
  while (across < quads && across < kThreads) across *= 2;
  const unsigned down = kThreads / across;
  const std::int64_t row_blocks = (op.rows + down - 1) / down;
  const dim3 blocks(
      static_cast<unsigned>((quads + across - 1) / across),
      static_cast<unsigned>(row_blocks < kMostRowBlocks ? row_blocks : kMostRowBlocks));
  return gpu::launch(embedding_kernel<Table>, blocks, dim3(across, down), 0, stream, op,
                     rows_aligned(op.width, op.table, op.y));
}

template cudaError_t embedding(const Embedding<float>&, cudaStream_t);
template cudaError_t embedding(const Embedding<__nv_bfloat16>&, cudaStream_t);

cudaError_t embedding_backward(const EmbeddingBackward& op, cudaStream_t stream) {
  if (!fits(op.rows, op.vocabulary, op.width)) return cudaErrorInvalidValue;
  const std::int64_t quads = quads_in(op.width);
  const dim3 blocks(static_cast<unsigned>(op.vocabulary),
                    static_cast<unsigned>((quads + kBackwardThreads - 1) / kBackwardThreads));
  return gpu::launch(embedding_backward_kernel, blocks, dim3(kBackwardThreads), 0, stream, op,
                     rows_aligned(op.width, op.dy, op.dtable));
}

}  // namespace bitnet::cuda
