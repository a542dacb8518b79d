// SPDX-License-Identifier: MIT
// One thread for four elements.
#include "cuda/elementwise.h"

#include "cuda/gpu.h"
#include "cuda/quads.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) add_kernel(Add op, bool aligned) {
  const std::int64_t at = quad_of_thread<kThreads>(), left = op.count - at;
  const float4 a = load_quad(op.a + at, left, aligned), b = load_quad(op.b + at, left, aligned);
  store_quad(op.y + at, left, aligned, make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w));
}

template <typename From, typename To>
__global__ void __launch_bounds__(kThreads) convert_kernel(Convert<From, To> op, bool aligned) {
  const std::int64_t at = quad_of_thread<kThreads>(), left = op.count - at;
  store_quad(op.y + at, left, aligned, load_quad(op.x + at, left, aligned));
}

}  // namespace

cudaError_t add(const Add& op, cudaStream_t stream) {
  if (op.count < 1) return cudaErrorInvalidValue;
  return gpu::launch(add_kernel, quad_blocks<kThreads>(op.count), dim3(kThreads), 0, stream, op,
                     quads_aligned(op.a, op.b, op.y));
}

template <typename From, typename To>
cudaError_t convert(const Convert<From, To>& op, cudaStream_t stream) {
  if (op.count < 1) return cudaErrorInvalidValue;
  return gpu::launch(convert_kernel<From, To>, quad_blocks<kThreads>(op.count), dim3(kThreads), 0,
                     stream, op, quads_aligned(op.x, op.y));
}

template cudaError_t convert(const Convert<float, __half>&, cudaStream_t);
template cudaError_t convert(const Convert<__half, float>&, cudaStream_t);
template cudaError_t convert(const Convert<__nv_bfloat16, float>&, cudaStream_t);

}  // namespace bitnet::cuda
