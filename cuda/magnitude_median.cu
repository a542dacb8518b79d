// SPDX-License-Identifier: MIT
// A radix select on the bits of magnitudes, which order as the numbers do, infinity and NaN on top:
// count the values of the highest digit among the elements, find the value that holds the wanted
// rank, and go on with the next digit of the elements that have it. Counts are integers, so the
// order in which they are added does not matter.
#include "cuda/magnitude_median.h"

#include <algorithm>

#include "cuda/gpu.h"
#include "cuda/weight_scale.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kMagnitudeBits = 31;

// Where a select has come to: `prefix` are the digits found, `rank` counts from 0 among the
// elements that have them.
struct Selection {
  std::uint32_t prefix, rank;
};

BITNET_DEVICE std::uint32_t magnitude_bits(float w) { return __float_as_uint(w) & kMagnitudeMask; }

// Calls visit with the value of the digit of `bits` bits above `shift`, if the higher ones are the
// prefix.
template <typename Visit>
BITNET_DEVICE void visit_digit(std::uint32_t magnitude, std::uint32_t prefix, int shift, int bits,
                               Visit visit) {
  if (magnitude >> shift >> bits == prefix) visit(magnitude >> shift & ((1U << bits) - 1));
}

// A warp: the digit's value that holds the rank, appended to the prefix.
template <int kCounts>
BITNET_DEVICE Selection select_digit(const std::uint32_t* counts, Selection selection, int bits) {
  constexpr int kOfLane = kCounts / gpu::kWarpSize;
  static_assert(kOfLane % 4 == 0);
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const std::uint32_t* of_lane = counts + lane * kOfLane;
  std::uint32_t sum = 0;
#pragma unroll 4
  for (int i = 0; i < kOfLane; i += 4) {
    const uint4 four = gpu::load_vector<uint4>(of_lane + i);
    sum += four.x + four.y + four.z + four.w;
  }
  std::uint32_t up_to = sum;  // of this lane and those before
#pragma unroll
  for (int distance = 1; distance < gpu::kWarpSize; distance *= 2) {
    const std::uint32_t before =
        __shfl_up_sync(gpu::kWholeWarp, up_to, static_cast<unsigned>(distance));
    if (lane >= distance) up_to += before;
  }
  // Lanes whose elements all lie below the rank; the next one has it.
  const int owner = __popc(__ballot_sync(gpu::kWholeWarp, up_to <= selection.rank));
  std::uint32_t value = 0, rank = 0;
  if (lane == owner) {
    rank = selection.rank - (up_to - sum);
    while (rank >= of_lane[value]) rank -= of_lane[value++];
    value += static_cast<std::uint32_t>(lane * kOfLane);
  }
  value = __shfl_sync(gpu::kWholeWarp, value, owner);
  rank = __shfl_sync(gpu::kWholeWarp, rank, owner);
  return {selection.prefix << bits | value, rank};
}

BITNET_DEVICE float median_scale(std::uint32_t median, std::uint32_t largest) {
  return bounded_scale(__uint_as_float(largest >= kInfinityBits ? largest : median));
}

// --- one scale for all weights: a launch for the counts of a digit, one for its value ---

constexpr int kMatrixDigits = 3;  // few passes over memory
constexpr int kMatrixBits[kMatrixDigits] = {11, 10, 10};
constexpr int kMatrixCounts = 1 << 11;
constexpr int kThreads = 256;
constexpr int kVector = 4;
constexpr std::int64_t kVectorsOfThread = 16;
constexpr std::int64_t kMostBlocks = 1024;  // each clears and adds up counts of its own

// The scratch memory, cleared at first.
struct MatrixSelect {
  std::uint32_t counts[kMatrixDigits][kMatrixCounts];
  Selection selection;
  std::uint32_t largest;  // magnitude that is not finite, or 0
  std::uint32_t unused;
};
static_assert(sizeof(MatrixSelect) == kMedianCounts * sizeof(std::uint32_t));

__global__ void __launch_bounds__(kThreads)
    count_digit_kernel(MagnitudeMedian op, int digit, int shift, int bits) {
  BITNET_SHARED_ARRAY(std::uint32_t, counts, kMatrixCounts);
  auto* state = reinterpret_cast<MatrixSelect*>(op.counts);
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < kMatrixCounts; i += kThreads) counts[i + thread] = 0;
  __syncthreads();
  const std::uint32_t prefix = state->selection.prefix;
  std::uint32_t largest = 0;
  const auto vectors = static_cast<std::uint32_t>(op.elements / kVector);
  const std::uint32_t stride = gridDim.x * kThreads;
#pragma unroll 4
  for (std::uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < vectors; i += stride) {
    const float4 w = gpu::load_vector<float4>(op.w + static_cast<std::size_t>(i) * kVector);
    const std::uint32_t magnitudes[kVector] = {magnitude_bits(w.x), magnitude_bits(w.y),
                                               magnitude_bits(w.z), magnitude_bits(w.w)};
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      largest = max(largest, magnitudes[j]);
      visit_digit(magnitudes[j], prefix, shift, bits,
                  [&](std::uint32_t value) { atomicAdd(&counts[value], 1U); });
    }
  }
  if (largest >= kInfinityBits) atomicMax(&state->largest, largest);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kMatrixCounts; i += kThreads) {
    const std::uint32_t count = counts[i + thread];
    if (count != 0) atomicAdd(&state->counts[digit][i + thread], count);
  }
}

// One warp.
__global__ void __launch_bounds__(gpu::kWarpSize)
    select_digit_kernel(MagnitudeMedian op, int digit, int bits) {
  auto* state = reinterpret_cast<MatrixSelect*>(op.counts);
  Selection selection = state->selection;
  if (digit == 0) selection.rank = static_cast<std::uint32_t>((op.elements - 1) / 2);
  selection = select_digit<kMatrixCounts>(state->counts[digit], selection, bits);
  if (threadIdx.x != 0) return;
  state->selection = selection;
  if (digit == kMatrixDigits - 1) *op.scales = median_scale(selection.prefix, state->largest);
}

cudaError_t launch_matrix(const MagnitudeMedian& op, cudaStream_t stream) {
  cudaError_t error = cudaMemsetAsync(op.counts, 0, sizeof(MatrixSelect), stream);
  const std::int64_t wanted = op.elements / (kVector * kVectorsOfThread * kThreads) + 1;
  const dim3 blocks(static_cast<unsigned>(std::min(wanted, kMostBlocks)));
  int shift = kMagnitudeBits;
  for (int digit = 0; digit < kMatrixDigits && error == cudaSuccess; ++digit) {
    const int bits = kMatrixBits[digit];
    shift -= bits;
    error =
        gpu::launch(count_digit_kernel, blocks, dim3(kThreads), 0, stream, op, digit, shift, bits);
    if (error != cudaSuccess) break;
    error =
        gpu::launch(select_digit_kernel, dim3(1), dim3(gpu::kWarpSize), 0, stream, op, digit, bits);
  }
  return error;
}

// --- scales of groups: a warp for each ---

constexpr int kWarps = 4;
constexpr int kGroupBits = 8;  // few counts to clear and to look through; the last digit has 7
constexpr int kGroupCounts = 1 << kGroupBits;

__global__ void __launch_bounds__(kWarps* gpu::kWarpSize)
    group_median_kernel(MagnitudeMedian op, std::int64_t groups) {
  BITNET_SHARED_ARRAY(std::uint32_t, all_counts, kWarps * kGroupCounts);
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / gpu::kWarpSize;
  const std::int64_t group = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (group >= groups) return;  // the whole warp; the block has no barrier
  std::uint32_t* counts = all_counts + warp * kGroupCounts;
  const float* w = op.w + group * op.group_size;
  const auto size = static_cast<std::uint32_t>(op.group_size);
  Selection selection{0, (size - 1) / 2};
  std::uint32_t largest = 0;
  for (int end = kMagnitudeBits; end > 0; end -= kGroupBits) {
    const int shift = max(end - kGroupBits, 0), bits = end - shift;
#pragma unroll
    for (int i = 0; i < kGroupCounts; i += 4 * gpu::kWarpSize) {
      gpu::store_vector(counts + i + 4 * lane, make_uint4(0, 0, 0, 0));
    }
    __syncwarp();
#pragma unroll 4
    for (std::uint32_t k = static_cast<std::uint32_t>(lane); k < size; k += gpu::kWarpSize) {
      const std::uint32_t magnitude = magnitude_bits(w[k]);
      largest = max(largest, magnitude);
      visit_digit(magnitude, selection.prefix, shift, bits,
                  [&](std::uint32_t value) { atomicAdd(&counts[value], 1U); });
    }
    __syncwarp();
    selection = select_digit<kGroupCounts>(counts, selection, bits);
    __syncwarp();  // before the counts are cleared
  }
  largest = __reduce_max_sync(gpu::kWholeWarp, largest);
  if (lane == 0) op.scales[group] = median_scale(selection.prefix, largest);
}

}  // namespace

cudaError_t magnitude_median(const MagnitudeMedian& op, cudaStream_t stream) {
  if (op.elements < 4 || op.elements % 4 != 0 || op.elements >> 32 != 0 || op.group_size < 1 ||
      op.elements % op.group_size != 0) {
    return cudaErrorInvalidValue;
  }
  const std::int64_t groups = op.elements / op.group_size;
  if (groups == 1) return launch_matrix(op, stream);
  return gpu::launch(group_median_kernel,
                     dim3(static_cast<unsigned>((groups + kWarps - 1) / kWarps)),
                     dim3(kWarps * gpu::kWarpSize), 0, stream, op, groups);
}

}  // namespace bitnet::cuda
