// SPDX-License-Identifier: MIT
#include "tests/cuda_emulator/vocabulary_kernels.h"

#include "cuda/gpu.h"
#include "cuda/reduce.cuh"

namespace bitnet::test {
namespace {

constexpr unsigned kAll = gpu::kWholeWarp;

__global__ void mma_s8_kernel(const std::uint32_t* a, const std::uint32_t* b, int* d) {
  const unsigned lane = threadIdx.x;
  std::uint32_t left[4], right[2];
  int sums[4];
  for (int i = 0; i < 4; ++i) left[i] = a[lane * 4 + i], sums[i] = d[lane * 4 + i];
  for (int i = 0; i < 2; ++i) right[i] = b[lane * 2 + i];
  gpu::mma_m16n8k32_s8(sums, left, right);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = sums[i];
}

__global__ void mma_bf16_kernel(const std::uint32_t* a, const std::uint32_t* b, float* d) {
  const unsigned lane = threadIdx.x;
  std::uint32_t left[4], right[2];
  float sums[4];
  for (int i = 0; i < 4; ++i) left[i] = a[lane * 4 + i], sums[i] = d[lane * 4 + i];
  for (int i = 0; i < 2; ++i) right[i] = b[lane * 2 + i];
  gpu::mma_m16n8k16_bf16(sums, left, right);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = sums[i];
}

template <bool kTransposed>
__global__ void ldmatrix_kernel(const std::uint16_t* matrices, std::uint32_t* registers) {
  constexpr int kPitch = 24;  // elements; rows need not be neighbours
  BITNET_SHARED_ARRAY(std::uint16_t, rows, 32 * kPitch);
  const unsigned lane = threadIdx.x;
  for (unsigned i = 0; i < 8; ++i) rows[lane * kPitch + i] = matrices[lane * 8 + i];
  __syncwarp(kAll);
  std::uint32_t loaded[4];
  if constexpr (kTransposed) {
    gpu::ldmatrix_x4_trans(loaded, rows + lane * kPitch);
  } else {
    gpu::ldmatrix_x4(loaded, rows + lane * kPitch);
  }
  for (int i = 0; i < 4; ++i) registers[lane * 4 + i] = loaded[i];
}

__global__ void copy_async_kernel(const std::uint32_t* from, std::uint32_t* to) {
  BITNET_SHARED_ARRAY(std::uint32_t, staged, 32 * 4);
  const unsigned lane = threadIdx.x;
  gpu::copy_async16(staged + (31 - lane) * 4, from + lane * 4, (31 - lane) % 3 != 0);
  gpu::commit_copies();
  gpu::wait_copies<0>();
  __syncthreads();
  gpu::store_vector(to + lane * 4, gpu::load_vector<uint4>(staged + lane * 4));
}

__global__ void warp_words_kernel(WarpResults* of_lane) {
  const int lane = static_cast<int>(threadIdx.x), value = 100 + lane;
  WarpResults r;
  r.shfl_from_5 = __shfl_sync(kAll, value, 5);
  r.shfl_parts_of_8 = __shfl_sync(kAll, value, 10, 8);
  r.up_by_3 = __shfl_up_sync(kAll, value, 3);
  r.down_by_3 = __shfl_down_sync(kAll, value, 3);
  r.xor_9 = __shfl_xor_sync(kAll, value, 9);
  r.xor_12_parts_of_8 = __shfl_xor_sync(kAll, value, 12, 8);
  r.ballot_of_even = __ballot_sync(kAll, lane % 2 == 0);
  r.sum = static_cast<unsigned>(__reduce_add_sync(kAll, value));
  r.maximum = __reduce_max_sync(kAll, static_cast<unsigned>(value));
  r.any_is_7 = __any_sync(kAll, lane == 7);
  r.all_below_32 = __all_sync(kAll, lane < 32);
  of_lane[lane] = r;
}

__global__ void number_words_kernel(NumberResults* results) {
  NumberResults r;
  r.dp4a = __dp4a(0x7f80ff01, 0x02fe0380, 1000);  // bytes 127, -128, -1, 1 and 2, -2, 3, -128
  const float ties[4] = {0.5f, 1.5f, -2.5f, 2.5f};
  for (int i = 0; i < 4; ++i) r.to_int_ties[i] = __float2int_rn(ties[i]);
  r.to_int_nan = __float2int_rn(__int_as_float(0x7fc00000));
  r.to_int_huge = __float2int_rn(-3e10f);
  r.leading_zeros = __clz(0x00012345);
  r.bits_set = __popc(0xf0f0f001U);
  r.byte_perm = __byte_perm(0x33221100U, 0x77665544U, 0x7250U);
  r.mulhi = __umulhi(0xffffffffU, 0x80000001U);
  r.bf16_pair = gpu::pack_bf16x2(1.00390625f, -3.0f);  // the first is a tie: rounds down to 1
  const float2 pair = gpu::unpack_bf16x2(r.bf16_pair);
  r.bf16_low = pair.x;
  r.bf16_high = pair.y;
  r.f16_pair = gpu::pack_f16x2(1.00048828125f, -65520.0f);  // a tie: rounds down to 1; infinity
  const float2 halves = gpu::unpack_f16x2(0xd0010001U);
  r.f16_low = halves.x;
  r.f16_high = halves.y;
  r.exp2_of_0 = gpu::exp2_approximate(0.0f);
  r.exp2_of_minus_infinity = gpu::exp2_approximate(__int_as_float(static_cast<int>(0xff800000U)));
  r.exp2_of_minus_127 = gpu::exp2_approximate(-127.0f);
  r.exp2_of_3_5 = gpu::exp2_approximate(3.5f);
  r.exp2_of_nan = gpu::exp2_approximate(__int_as_float(0x7fc00000));
  *results = r;
}

__global__ void __launch_bounds__(kReduceThreads) block_reductions_kernel(float* to) {
  const unsigned value = 1 + threadIdx.x;
  const float once = cuda::block_sum<kReduceThreads>(static_cast<float>(value));
  const float twice = cuda::block_sum<kReduceThreads>(static_cast<float>(2 * value));
  const unsigned most = cuda::block_max<kReduceThreads>(value);
  to[threadIdx.x] = 10000.0f * static_cast<float>(most) + once + twice;
}

const dim3 kOne(1), kWarp(32);

}  // namespace

cudaError_t run_mma_s8(const std::uint32_t* a, const std::uint32_t* b, int* d,
                       cudaStream_t stream) {
  return gpu::launch(mma_s8_kernel, kOne, kWarp, 0, stream, a, b, d);
}
cudaError_t run_mma_bf16(const std::uint32_t* a, const std::uint32_t* b, float* d,
                         cudaStream_t stream) {
  return gpu::launch(mma_bf16_kernel, kOne, kWarp, 0, stream, a, b, d);
}
cudaError_t run_ldmatrix(const std::uint16_t* matrices, bool transposed, std::uint32_t* registers,
                         cudaStream_t stream) {
  return gpu::launch(transposed ? ldmatrix_kernel<true> : ldmatrix_kernel<false>, kOne, kWarp, 0,
                     stream, matrices, registers);
}
cudaError_t run_copy_async(const std::uint32_t* from, std::uint32_t* to, cudaStream_t stream) {
  return gpu::launch(copy_async_kernel, kOne, kWarp, 0, stream, from, to);
}
cudaError_t run_warp_words(WarpResults* of_lane, cudaStream_t stream) {
  return gpu::launch(warp_words_kernel, kOne, kWarp, 0, stream, of_lane);
}
cudaError_t run_number_words(NumberResults* results, cudaStream_t stream) {
  return gpu::launch(number_words_kernel, kOne, kOne, 0, stream, results);
}

cudaError_t run_block_reductions(float* to, cudaStream_t stream) {
  return gpu::launch(block_reductions_kernel, kOne, dim3(kReduceThreads), 0, stream, to);
}

}  // namespace bitnet::test
