// SPDX-License-Identifier: MIT
// One warp per packed row, that is for four outputs: byte k of packed row r holds trit + 1 of rows
// r, r + N/4, r + 2N/4, r + 3N/4 in its bits 0-1, 2-3, 4-5, 6-7. Masked words go into dp4a as they
// are, and the sum of the codes takes the + 1 off again.
#include "cuda/packed_gemv.h"

#include "cuda/gpu.h"
#include "cuda/reals.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * gpu::kWarpSize;
constexpr int kVector = 16;  // bytes of K that a lane reads at once
constexpr int kStep = gpu::kWarpSize * kVector;
constexpr int kQuarters = 4;
constexpr int kPiece = 64;  // columns of which groups are made: those of 4 lanes
constexpr int kPieceLanes = kPiece / kVector;
constexpr int kPieces = kStep / kPiece;  // of a step

// Adds the products of 16 columns from k, of every token and quarter.
template <int kTokens>
BITNET_DEVICE void add_vector(const PackedGemv& p, const std::uint8_t* weights, int k,
                              int (&sums)[kTokens][kQuarters]) {
  const uint4 w = gpu::load_vector<uint4>(weights + k);
  const unsigned words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const int token = min(t, p.tokens - 1);  // a token too many is not stored
    const int4 x = gpu::load_vector<int4>(p.codes + static_cast<std::size_t>(token) * p.depth + k);
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

BITNET_DEVICE void store(const PackedMatrix& m, int token, int column, float value) {
  const std::size_t at = static_cast<std::size_t>(token) * m.columns + column;
  store_real(m.y, at, m.residual == nullptr ? value : m.residual[at] + value);
}

// x: packed rows, y: products.
template <int kTokens>
__global__ void __launch_bounds__(kThreads) packed_gemv_kernel(PackedGemv p) {
  const PackedMatrix& m = p.matrix[blockIdx.y];
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int quarter = m.columns / kQuarters;
  const int row =
      static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / gpu::kWarpSize;
  if (row >= quarter) return;  // the whole warp; the block has no barrier
  const std::uint8_t* weights = m.packed + static_cast<std::size_t>(row) * p.depth;
  int sums[kTokens][kQuarters] = {};
  for (int k = lane * kVector; k < p.depth; k += kStep) add_vector(p, weights, k, sums);
  const float weight_scale = *m.weight_scale;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
#pragma unroll
    for (int q = 0; q < kQuarters; ++q) {
      const int sum = __reduce_add_sync(gpu::kWholeWarp, sums[t][q]);
      if (lane == q && t < p.tokens) {
        store(m, t, q * quarter + row, p.act_scale[t] * weight_scale * static_cast<float>(sum));
      }
    }
  }
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
    int sums[kTokens][kQuarters] = {};
    const int k = from + lane * kVector;
    if (k < p.depth) add_vector(p, weights, k, sums);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
#pragma unroll
      for (int q = 0; q < kQuarters; ++q) {
        int sum = sums[t][q];
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
  if (has_output) store(m, token, column, f * p.act_scale[token]);
}

template <int kTokens>
cudaError_t launch_tokens(const PackedGemv& p, bool grouped, cudaStream_t stream) {
  int most = 0;
  for (int i = 0; i < p.products; ++i) most = max(most, p.matrix[i].columns / kQuarters);
  const dim3 grid(static_cast<unsigned>((most + kWarps - 1) / kWarps),
                  static_cast<unsigned>(p.products));
  return gpu::launch(grouped ? grouped_gemv_kernel<kTokens> : packed_gemv_kernel<kTokens>, grid,
                     dim3(kThreads), 0, stream, p);
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
