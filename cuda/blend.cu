// SPDX-License-Identifier: MIT
// One thread for four elements.
#include "cuda/blend.h"

#include "cuda/gpu.h"
#include "cuda/quads.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

BITNET_DEVICE float mixed(float x, float quantized, float amount) {
  return x + amount * (quantized - x);
}

__global__ void __launch_bounds__(kThreads) blend_kernel(Blend op, bool aligned) {
  const std::int64_t at = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kQuad;
  const std::int64_t left = op.count - at;
  const float4 x = load_quad(op.x + at, left, aligned);
  const float4 quantized = load_quad(op.quantized + at, left, aligned);
  store_quad(op.out + at, left, aligned,
             make_float4(mixed(x.x, quantized.x, op.amount), mixed(x.y, quantized.y, op.amount),
                         mixed(x.z, quantized.z, op.amount), mixed(x.w, quantized.w, op.amount)));
}

}  // namespace

cudaError_t blend(const Blend& op, cudaStream_t stream) {
  if (op.count < 1) return cudaErrorInvalidValue;
  const std::int64_t blocks = (quads_in(op.count) + kThreads - 1) / kThreads;
  return gpu::launch(blend_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream,
                     op, quads_aligned(op.x, op.quantized, op.out));
}

}  // namespace bitnet::cuda
