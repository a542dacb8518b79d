// SPDX-License-Identifier: MIT
// One small kernel for each word of cuda/gpu.h whose layout matters, so that a test can look at
// what every lane gets. nvcc compiles them too: the same tests run on a device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::test {

// Registers lie as [lane][register]. One warp each.
cudaError_t run_mma_s8(const std::uint32_t* a, const std::uint32_t* b, int* d, cudaStream_t stream);
cudaError_t run_mma_bf16(const std::uint32_t* a, const std::uint32_t* b, float* d,
                         cudaStream_t stream);
// matrices: [4, 8, 8] 16-bit elements.
cudaError_t run_ldmatrix(const std::uint16_t* matrices, bool transposed, std::uint32_t* registers,
                         cudaStream_t stream);
// to[lane]: 16 bytes of from[31 - lane] copied by cp.async, or zeros where lane % 3 == 0.
cudaError_t run_copy_async(const std::uint32_t* from, std::uint32_t* to, cudaStream_t stream);

// What lane l gets when it gives 100 + l.
struct WarpResults {
  int shfl_from_5, shfl_parts_of_8, up_by_3, down_by_3, xor_9, xor_12_parts_of_8;
  unsigned ballot_of_even, sum, maximum;
  int any_is_7, all_below_32;
};
cudaError_t run_warp_words(WarpResults* of_lane, cudaStream_t stream);

struct NumberResults {
  int dp4a, to_int_ties[4], to_int_nan, to_int_huge, leading_zeros, bits_set;
  unsigned byte_perm, mulhi, bf16_pair, f16_pair;
  float bf16_low, bf16_high, f16_low, f16_high;
  float exp2_of_0, exp2_of_minus_infinity, exp2_of_minus_127, exp2_of_3_5, exp2_of_nan;
};
cudaError_t run_number_words(NumberResults* results, cudaStream_t stream);

// to[thread]: 10000 block_max + block_sum twice, of 1 + thread and of 2 (1 + thread), by
// cuda/reduce.cuh.
constexpr int kReduceThreads = 128;
cudaError_t run_block_reductions(float* to, cudaStream_t stream);

}  // namespace bitnet::test
