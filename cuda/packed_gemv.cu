// SPDX-License-Identifier: MIT
// One to eight warps share a packed row's columns, so that a small matrix also fills the device;
// weights are on their way to the second-level cache before the codes are there.
#include "cuda/packed_gemv.h"

#include "cuda/gpu.h"
#include "cuda/packed_rows.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * gpu::kWarpSize;
constexpr int kPiece = 64;  // columns of which groups are made: those of 4 lanes
constexpr int kPieceLanes = kPiece / kVector;
constexpr int kPieces = kStep / kPiece;  // of a step
constexpr int kManyWarps = 2048;         // of a launch: no more for the sake of sharing rows

// Adds the products of 16 columns from k, of every token.
template <int kTokens>
BITNET_DEVICE void add_vector(const PackedGemv& p, const uint4& weights, int k,
                              PackedSums (&sums)[kTokens]) {
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const int token = min(t, p.tokens - 1);  // a token too many is not stored
    sums[t].add(weights,
                gpu::load_vector<int4>(p.codes + static_cast<std::size_t>(token) * p.depth + k));
  }
}

// x: packed rows, kWarps / parts a block; y: products.
template <int kTokens>
__global__ void __launch_bounds__(kThreads) packed_gemv_kernel(PackedGemv p, int parts) {
  constexpr int kOutputs = kTokens * kQuarters;  // of a packed row
  constexpr int kAhead = 4;                      // vectors that a lane reads at once
  static_assert(kWarps * kOutputs <= kThreads);
  BITNET_SHARED_ARRAY(int, part_sums, kWarps* kOutputs);
  const PackedMatrix& m = p.matrix[blockIdx.y];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % gpu::kWarpSize, warp = thread / gpu::kWarpSize;
  const int quarter = m.columns / kQuarters, rows = kWarps / parts, step = parts * kStep;
  const int first_row = static_cast<int>(blockIdx.x) * rows;
  prefetch_rows(m, p.depth, first_row, rows);
  gpu::wait_for_predecessors();
  if (first_row >= quarter) return;  // the whole block

  // What the thread's output needs beside its sum, read now for the sake of its latency.
  const int out_row = first_row + thread / kOutputs, out_token = thread % kOutputs / kQuarters;
  const bool has_output = thread < rows * kOutputs && out_row < quarter && out_token < p.tokens;
  const std::size_t out_at =
      static_cast<std::size_t>(out_token) * m.columns + thread % kQuarters * quarter + out_row;
  float act_scale = 0.0f, weight_scale = 0.0f, residual = 0.0f;
  if (has_output) {
    act_scale = p.act_scale[out_token], weight_scale = *m.weight_scale;
    residual = residual_of(m, out_at);
  }

  const int row = min(first_row + warp / parts, quarter - 1);  // a row too many is not stored
  const std::uint8_t* weights = m.packed + static_cast<std::size_t>(row) * p.depth;
  PackedSums sums[kTokens];
  for (int first = (warp % parts * gpu::kWarpSize + lane) * kVector; first < p.depth;
       first += kAhead * step) {
    uint4 w[kAhead] = {};
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int k = first + i * step;
      if (k < p.depth) w[i] = gpu::load_vector<uint4>(weights + k);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int k = first + i * step;
      if (k < p.depth) add_vector(p, w[i], k, sums);
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
#pragma unroll
    for (int q = 0; q < kQuarters; ++q) {
      const int sum = __reduce_add_sync(gpu::kWholeWarp, sums[t].of(q));
      if (lane == t * kQuarters + q) part_sums[warp * kOutputs + lane] = sum;
    }
  }
  __syncthreads();
  if (!has_output) return;
  const int* const of_parts = part_sums + thread / kOutputs * parts * kOutputs + thread % kOutputs;
  int sum = 0;
  for (int part = 0; part < parts; ++part) sum += of_parts[part * kOutputs];
  store_output(m, out_at, residual, act_scale * weight_scale * static_cast<float>(sum));
}

// The same with groups. Each step leaves the sums of its pieces in shared memory, where one lane
// for each output adds them up to groups, and the groups in ascending order.
template <int kTokens>
__global__ void __launch_bounds__(kThreads) grouped_gemv_kernel(PackedGemv p) {
  constexpr int kOutputs = kTokens * kQuarters;
  static_assert(kOutputs <= gpu::kWarpSize);
  BITNET_SHARED_ARRAY(int, piece_sums, kWarps* kPieces* kOutputs);
  const PackedMatrix& m = p.matrix[blockIdx.y];
  const int warp = static_cast<int>(threadIdx.x) / gpu::kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int quarter = m.columns / kQuarters;
  const int row = static_cast<int>(blockIdx.x) * kWarps + warp;
  prefetch_rows(m, p.depth, static_cast<int>(blockIdx.x) * kWarps, kWarps);
  gpu::wait_for_predecessors();
  if (row >= quarter) return;  // the whole warp; the block has no barrier
  const std::uint8_t* weights = m.packed + static_cast<std::size_t>(row) * p.depth;
  int* const pieces = piece_sums + warp * kPieces * kOutputs;

  const int token = lane / kQuarters, column = lane % kQuarters * quarter + row;
  const bool has_output = lane < kOutputs && token < p.tokens;
  const int group_pieces = p.depth / m.groups / kPiece;
  const float* const scales = m.weight_scale + static_cast<std::size_t>(column) * m.groups;
  float f = 0.0f;
  int group_sum = 0, group = 0, in_group = 0;
  for (int from = 0; from < p.depth; from += kStep) {
    PackedSums sums[kTokens];
    const int k = from + lane * kVector;
    if (k < p.depth) add_vector(p, gpu::load_vector<uint4>(weights + k), k, sums);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
#pragma unroll
      for (int q = 0; q < kQuarters; ++q) {
        int sum = sums[t].of(q);
#pragma unroll
        for (int distance = 1; distance < kPieceLanes; distance *= 2) {
          sum += __shfl_xor_sync(gpu::kWholeWarp, sum, distance);
        }
        if (lane % kPieceLanes == 0)
          pieces[lane / kPieceLanes * kOutputs + t * kQuarters + q] = sum;
      }
    }
    __syncwarp();
    const int count = min((p.depth - from) / kPiece, kPieces);
    if (has_output) {
      for (int i = 0; i < count; ++i) {
        group_sum += pieces[i * kOutputs + lane];
        if (++in_group < group_pieces) continue;
        f = fmaf(scales[group++], static_cast<float>(group_sum), f);
        group_sum = in_group = 0;
      }
    }
    __syncwarp();  // the next step writes the pieces again, and its shuffles do not order memory
  }
  if (!has_output) return;
  const std::size_t at = static_cast<std::size_t>(token) * m.columns + column;
  store_output(m, at, residual_of(m, at), f * p.act_scale[token]);
}

// Warps that share a packed row: more, as long as the launch has few and each would still have a
// whole step.
int parts_of_row(const PackedGemv& p) {
  std::int64_t warps = 0;
  for (int i = 0; i < p.products; ++i) warps += p.matrix[i].columns / kQuarters;
  int parts = 1;
  for (; parts < kWarps && 2 * warps <= kManyWarps && p.depth > parts * kStep; warps *= 2) {
    parts *= 2;
  }
  return parts;
}

template <int kTokens>
cudaError_t launch_tokens(const PackedGemv& p, bool grouped, cudaStream_t stream) {
  const int parts = grouped ? 1 : parts_of_row(p), rows = kWarps / parts;
  int most = 0;
  for (int i = 0; i < p.products; ++i) most = max(most, p.matrix[i].columns / kQuarters);
  const dim3 grid(static_cast<unsigned>((most + rows - 1) / rows),
                  static_cast<unsigned>(p.products));
  if (grouped) {
    return gpu::launch_overlapping(grouped_gemv_kernel<kTokens>, grid, dim3(kThreads), 0, stream,
                                   p);
  }
  return gpu::launch_overlapping(packed_gemv_kernel<kTokens>, grid, dim3(kThreads), 0, stream, p,
                                 parts);
}

// The products with groups, or those without, as one launch.
cudaError_t launch_part(const PackedGemv& all, bool grouped, cudaStream_t stream) {
  PackedGemv p = all;
  p.products = 0;
  for (int i = 0; i < all.products; ++i) {
    if ((all.matrix[i].groups > 0) == grouped) p.matrix[p.products++] = all.matrix[i];
  }
  if (p.products == 0) return cudaSuccess;
  if (p.tokens == 1) return launch_tokens<1>(p, grouped, stream);
  if (p.tokens == 2) return launch_tokens<2>(p, grouped, stream);
  if (p.tokens <= 4) return launch_tokens<4>(p, grouped, stream);
  return launch_tokens<8>(p, grouped, stream);
}

}  // namespace

cudaError_t packed_gemv(const PackedGemv& p, cudaStream_t stream) {
  if (p.tokens < 1 || p.tokens > kPackedGemvTokens || p.products < 1 ||
      p.products > kPackedGemvProducts || p.depth < kPiece || p.depth % kPiece != 0 ||
      p.depth >= 1 << 24) {
    return cudaErrorInvalidValue;
  }
  for (int i = 0; i < p.products; ++i) {
    const PackedMatrix& m = p.matrix[i];
    if (m.columns < kQuarters || m.columns % kQuarters != 0 || m.groups < 0 ||
        (m.groups > 0 && p.depth % (m.groups * kPiece) != 0)) {
      return cudaErrorInvalidValue;
    }
  }
  const cudaError_t error = launch_part(p, false, stream);
  return error != cudaSuccess ? error : launch_part(p, true, stream);
}

}  // namespace bitnet::cuda
