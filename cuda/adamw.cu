// SPDX-License-Identifier: MIT
// A block for 4096 elements of any of the parameters, a thread for four of them at a time; the order
// of operations is the CPU backend's, so equal bits.
#include "cuda/adamw.h"

#include "cuda/gpu.h"
#include "cuda/quads.cuh"
#include "cuda/tensor_list.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kQuadsOfThread = 4;
constexpr int kPart = kThreads * kQuadsOfThread * kQuad;

using List = TensorList<AdamW>;

BITNET_DEVICE void update(const AdamWFactors& f, float decay, float gradient, float& parameter,
                          float& m, float& v) {
  const float g = gradient * f.grad_scale;
  m = fmaf(f.one_minus_beta1, g - m, m);
  v = fmaf(f.one_minus_beta2 * g, g, v * f.beta2);
  const float denominator = fmaf(sqrtf(v), f.inv_sqrt_bias2, f.eps);
  parameter = fmaf(-f.step_size, m / denominator, parameter * decay);
}

BITNET_DEVICE std::uintptr_t address(const float* x) { return reinterpret_cast<std::uintptr_t>(x); }

__global__ void __launch_bounds__(kThreads) adamw_kernel(List list, AdamWFactors factors) {
  const int tensor = list.tensor_of(blockIdx.x);
  const AdamW op = list.tensors[tensor];
  const float decay = op.decays ? factors.decay : 1.0f;
  const bool aligned =
      (address(op.gradient) | address(op.parameter) | address(op.m) | address(op.v)) %
          (kQuad * sizeof(float)) ==
      0;
  const std::int64_t first =
      static_cast<std::int64_t>(blockIdx.x - list.first_part[tensor]) * kPart;
#pragma unroll
  for (int q = 0; q < kQuadsOfThread; ++q) {
    const std::int64_t at = first + (q * kThreads + static_cast<int>(threadIdx.x)) * kQuad;
    const std::int64_t left = op.count - at;
    const float4 g = load_quad(op.gradient + at, left, aligned);
    float4 p = load_quad(op.parameter + at, left, aligned);
    float4 m = load_quad(op.m + at, left, aligned), v = load_quad(op.v + at, left, aligned);
    update(factors, decay, g.x, p.x, m.x, v.x);
    update(factors, decay, g.y, p.y, m.y, v.y);
    update(factors, decay, g.z, p.z, m.z, v.z);
    update(factors, decay, g.w, p.w, m.w, v.w);
    store_quad(op.parameter + at, left, aligned, p);
    store_quad(op.m + at, left, aligned, m);
    store_quad(op.v + at, left, aligned, v);
  }
}

}  // namespace

cudaError_t adamw(const AdamWFactors& factors, std::span<const AdamW> parameters,
                  cudaStream_t stream) {
  return for_each_list(
      parameters, [](const AdamW& op) { return (op.count + kPart - 1) / kPart; },
      [&](const List& list, std::int64_t) {
        const std::uint32_t blocks = list.first_part[list.count];
        if (blocks == 0) return cudaSuccess;
        return gpu::launch(adamw_kernel, dim3(blocks), dim3(kThreads), 0, stream, list, factors);
      });
}

}  // namespace bitnet::cuda
