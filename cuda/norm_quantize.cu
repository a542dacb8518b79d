// SPDX-License-Identifier: MIT
// One block per row, the row in registers: thread i has elements 8 i .. 8 i + 7 of each chunk of
// 8 * kThreads. Sums go over a thread's elements in ascending order, then as in reduce.cuh.
#include "cuda/norm_quantize.h"

#include "cuda/gpu.h"
#include "cuda/reduce.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 8;  // elements that a thread reads at once
constexpr int kChunk = kThreads * kVector;
constexpr float kScaleEps = 1e-5f;  // as core/quant: keeps 1 / scale finite
constexpr float kActivationMax = 127.0f;
constexpr unsigned kMagnitudeMask = 0x7fffffffU, kInfinityBits = 0x7f800000U;

BITNET_DEVICE void load8(const float* from, float (&to)[kVector]) {
  const float4 low = gpu::load_vector<float4>(from), high = gpu::load_vector<float4>(from + 4);
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}
BITNET_DEVICE void load8(const __nv_bfloat16* from, float (&to)[kVector]) {
  const uint4 bits = gpu::load_vector<uint4>(from);
  const float2 pairs[4] = {gpu::unpack_bf16x2(bits.x), gpu::unpack_bf16x2(bits.y),
                           gpu::unpack_bf16x2(bits.z), gpu::unpack_bf16x2(bits.w)};
#pragma unroll
  for (int i = 0; i < 4; ++i) to[2 * i] = pairs[i].x, to[2 * i + 1] = pairs[i].y;
}

BITNET_DEVICE unsigned pack4(const float* x, float inv_scale) {  // |x * inv_scale| < 128
  unsigned packed = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    packed |= (static_cast<unsigned>(__float2int_rn(x[i] * inv_scale)) & 0xffU) << (8 * i);
  }
  return packed;
}

template <int kChunks, typename Input>
__global__ void __launch_bounds__(kThreads) norm_quantize_kernel(NormQuantize<Input> op) {
  const std::size_t row = static_cast<std::size_t>(blockIdx.x) * op.hidden_size;
  const int first = static_cast<int>(threadIdx.x) * kVector;
  float z[kChunks][kVector];
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int at = first + c * kChunk;
    if (at >= op.hidden_size) continue;
    load8(op.x + row + at, z[c]);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum = fmaf(z[c][i], z[c][i], sum);
  }
  const float mean_square = block_sum<kThreads>(sum) / static_cast<float>(op.hidden_size);
  const float inv_rms = 1.0f / sqrtf(mean_square + op.eps);

  unsigned absmax_bits = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int at = first + c * kChunk;
    if (at >= op.hidden_size) continue;
    float gain[kVector] = {1, 1, 1, 1, 1, 1, 1, 1};
    if (op.gain != nullptr) load8(op.gain + at, gain);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      z[c][i] = z[c][i] * inv_rms * gain[i];
      absmax_bits = max(absmax_bits, __float_as_uint(z[c][i]) & kMagnitudeMask);
    }
  }
  absmax_bits = block_max<kThreads>(absmax_bits);
  const bool finite = absmax_bits < kInfinityBits;
  const float absmax = __uint_as_float(max(absmax_bits, __float_as_uint(kScaleEps)));
  const float inv_scale = finite ? kActivationMax / absmax : 0.0f;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int at = first + c * kChunk;
    if (at >= op.hidden_size) continue;
    const uint2 codes =
        finite ? make_uint2(pack4(z[c], inv_scale), pack4(z[c] + 4, inv_scale)) : make_uint2(0, 0);
    gpu::store_vector(op.codes + row + at, codes);
  }
  if (threadIdx.x == 0) {
    op.act_scale[blockIdx.x] = absmax / kActivationMax;
    if (op.inv_rms != nullptr) op.inv_rms[blockIdx.x] = inv_rms;
  }
}

template <int kChunks, typename Input>
cudaError_t launch_chunks(const NormQuantize<Input>& op, cudaStream_t stream) {
  return gpu::launch(norm_quantize_kernel<kChunks, Input>, dim3(static_cast<unsigned>(op.rows)),
                     dim3(kThreads), 0, stream, op);
}

}  // namespace

template <typename Input>
cudaError_t norm_quantize(const NormQuantize<Input>& op, cudaStream_t stream) {
  if (op.rows < 1 || op.hidden_size < kVector || op.hidden_size % kVector != 0 ||
      op.hidden_size > 8 * kChunk) {
    return cudaErrorInvalidValue;
  }
  if (op.hidden_size <= kChunk) return launch_chunks<1>(op, stream);
  if (op.hidden_size <= 2 * kChunk) return launch_chunks<2>(op, stream);
  if (op.hidden_size <= 4 * kChunk) return launch_chunks<4>(op, stream);
  return launch_chunks<8>(op, stream);
}

template cudaError_t norm_quantize(const NormQuantize<float>&, cudaStream_t);
template cudaError_t norm_quantize(const NormQuantize<__nv_bfloat16>&, cudaStream_t);

}  // namespace bitnet::cuda
