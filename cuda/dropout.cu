// SPDX-License-Identifier: MIT
// One thread for a block of four random words, and so for four elements.
#include "cuda/dropout.h"

#include "cuda/gpu.h"
#include "cuda/quads.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

// Philox4x32-10 (Salmon et al. 2011), as philox4x32() of core/base/random.h.
BITNET_DEVICE uint4 philox(uint4 counter, std::uint64_t key) {
  std::uint32_t low_key = static_cast<std::uint32_t>(key);
  std::uint32_t high_key = static_cast<std::uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t high0 = __umulhi(0xD2511F53U, counter.x), low0 = 0xD2511F53U * counter.x;
    const std::uint32_t high1 = __umulhi(0xCD9E8D57U, counter.z), low1 = 0xCD9E8D57U * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ low_key, low1, high0 ^ counter.w ^ high_key, low0);
    low_key += 0x9E3779B9U;
    high_key += 0xBB67AE85U;
  }
  return counter;
}

__global__ void __launch_bounds__(kThreads) dropout_kernel(Dropout op, bool aligned) {
  const std::int64_t at = quad_of_thread<kThreads>(), left = op.count - at;
  const std::uint64_t block = op.first_block + static_cast<std::uint64_t>(at / kQuad);
  const uint4 word =
      philox(make_uint4(static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                        op.step, op.purpose),
             op.seed);
  const float4 x = load_quad(op.x + at, left, aligned);
  store_quad(op.y + at, left, aligned,
             make_float4(word.x > op.last_dropped ? x.x / op.keep : 0.0f,
                         word.y > op.last_dropped ? x.y / op.keep : 0.0f,
                         word.z > op.last_dropped ? x.z / op.keep : 0.0f,
                         word.w > op.last_dropped ? x.w / op.keep : 0.0f));
}

}  // namespace

cudaError_t dropout(const Dropout& op, cudaStream_t stream) {
  if (op.count < 1) return cudaErrorInvalidValue;
  return gpu::launch(dropout_kernel, quad_blocks<kThreads>(op.count), dim3(kThreads), 0, stream, op,
                     quads_aligned(op.x, op.y));
}

}  // namespace bitnet::cuda
