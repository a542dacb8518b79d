// SPDX-License-Identifier: MIT
// A warp, or with a large vocabulary a block, for each row; thread i of them has the elements 4 i
// .. 4 i + 3 of each chunk. The first pass finds the maximum and the sum at once (online
// logsumexp), the second writes the gradient; probabilities are not stored. The order of a row's
// sum depends on V alone.
#include "cuda/cross_entropy.h"

#include <cfloat>

#include "cuda/gpu.h"
#include "cuda/quads.cuh"
#include "cuda/reduce.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLargestOfWarp = 1024;  // vocabulary

// The sum of exp(x) over some elements is exp(peak) * total. Of nothing: {-FLT_MAX, 0}, which, other
// than -infinity, can be subtracted from itself; logits of -infinity then add exp(-infinity).
struct ExpSum {
  float peak, total;
};

BITNET_DEVICE ExpSum merged(ExpSum a, ExpSum b) {
  const float peak = fmaxf(a.peak, b.peak);
  return {peak, a.total * expf(a.peak - peak) + b.total * expf(b.peak - peak)};
}

// NaN is no peak (fmaxf leaves it out), but its exp is a NaN, as is that of infinity - infinity.
BITNET_DEVICE void add_quad(ExpSum& sum, float4 x) {
  const float peak = fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w));
  if (peak > sum.peak) {
    sum.total *= expf(sum.peak - peak);
    sum.peak = peak;
  }
  sum.total +=
      (expf(x.x - sum.peak) + expf(x.y - sum.peak)) + (expf(x.z - sum.peak) + expf(x.w - sum.peak));
}

// Of the values of all threads of the row; each gets it.
template <int kRowThreads>
BITNET_DEVICE ExpSum sum_of_row(ExpSum sum) {
#pragma unroll
  for (int distance = gpu::kWarpSize / 2; distance > 0; distance /= 2) {
    sum = merged(sum, {__shfl_xor_sync(gpu::kWholeWarp, sum.peak, distance),
                       __shfl_xor_sync(gpu::kWholeWarp, sum.total, distance)});
  }
  if constexpr (kRowThreads == gpu::kWarpSize) {
    return sum;
  } else {
    return detail::fold_warps<kRowThreads>(sum, [](ExpSum a, ExpSum b) { return merged(a, b); });
  }
}

template <int kRowThreads>
__global__ void __launch_bounds__(kThreads) cross_entropy_kernel(CrossEntropy op, bool aligned) {
  constexpr int kRows = kThreads / kRowThreads, kChunk = kRowThreads * kQuad;
  const int thread = static_cast<int>(threadIdx.x) % kRowThreads;
  const int row =
      static_cast<int>(blockIdx.x) * kRows + static_cast<int>(threadIdx.x) / kRowThreads;
  if (row >= op.rows) return;  // a whole warp; never with a block for a row
  const std::int64_t start = static_cast<std::int64_t>(row) * op.vocabulary;
  const float* logits = op.logits + start;
  float* const dlogits = op.dlogits == nullptr ? nullptr : op.dlogits + start;
  const int target = op.targets[row];
  const bool valid = target >= 0 && target < op.vocabulary;

  ExpSum sum = {-FLT_MAX, 0.0f};
  if (valid) {
    for (int at = thread * kQuad; at < op.vocabulary; at += kChunk) {
      add_quad(sum, load_quad(logits + at, op.vocabulary - at, aligned, -INFINITY));
    }
  }
  sum = sum_of_row<kRowThreads>(sum);
  // The thread that will overwrite the target's logit is the one that reads it.
  const int owner = valid ? target / kQuad % kRowThreads : 0;
  if (thread == owner) {
    op.loss[row] = valid          ? logf(sum.total) + (sum.peak - logits[target])
                   : target == -1 ? 0.0f
                                  : NAN;
  }
  if (dlogits == nullptr) return;
  const float factor = op.scale / sum.total;
  const float constant = target == -1 ? 0.0f : NAN;  // where there is no valid target
  for (int at = thread * kQuad; at < op.vocabulary; at += kChunk) {
    const int left = op.vocabulary - at;
    float4 d = make_float4(constant, constant, constant, constant);
    if (valid) {
      const float4 x = load_quad(logits + at, left, aligned);
      d.x = expf(x.x - sum.peak) * factor - (at == target ? op.scale : 0.0f);
      d.y = expf(x.y - sum.peak) * factor - (at + 1 == target ? op.scale : 0.0f);
      d.z = expf(x.z - sum.peak) * factor - (at + 2 == target ? op.scale : 0.0f);
      d.w = expf(x.w - sum.peak) * factor - (at + 3 == target ? op.scale : 0.0f);
    }
    store_quad(dlogits + at, left, aligned, d);
  }
}

template <int kRowThreads>
cudaError_t launch(const CrossEntropy& op, cudaStream_t stream) {
  constexpr int kRows = kThreads / kRowThreads;
  const bool aligned = op.vocabulary % kQuad == 0 && quads_aligned(op.logits, op.dlogits);
  return gpu::launch(cross_entropy_kernel<kRowThreads>,
                     dim3(static_cast<unsigned>((op.rows - 1) / kRows + 1)), dim3(kThreads), 0,
                     stream, op, aligned);
}

}  // namespace

cudaError_t cross_entropy(const CrossEntropy& op, cudaStream_t stream) {
  if (op.rows < 1 || op.vocabulary < 1) return cudaErrorInvalidValue;
  return op.vocabulary <= kLargestOfWarp ? launch<gpu::kWarpSize>(op, stream)
                                         : launch<kThreads>(op, stream);
}

}  // namespace bitnet::cuda
