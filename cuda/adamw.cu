// SPDX-License-Identifier: MIT
// One thread for four elements; the order of operations is the CPU backend's, so equal bits.
#include "cuda/adamw.h"

#include "cuda/gpu.h"
#include "cuda/quads.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

BITNET_DEVICE void update(const AdamWFactors& f, float gradient, float& parameter, float& m,
                          float& v) {
  const float g = gradient * f.grad_scale;
  m = fmaf(f.one_minus_beta1, g - m, m);
  v = fmaf(f.one_minus_beta2 * g, g, v * f.beta2);
  const float denominator = fmaf(sqrtf(v), f.inv_sqrt_bias2, f.eps);
  parameter = fmaf(-f.step_size, m / denominator, parameter * f.decay);
}

__global__ void __launch_bounds__(kThreads) adamw_kernel(AdamW op, bool aligned) {
  const std::int64_t at = quad_of_thread<kThreads>(), left = op.count - at;
  const float4 g = load_quad(op.gradient + at, left, aligned);
  float4 p = load_quad(op.parameter + at, left, aligned);
  float4 m = load_quad(op.m + at, left, aligned), v = load_quad(op.v + at, left, aligned);
  update(op.factors, g.x, p.x, m.x, v.x);
  update(op.factors, g.y, p.y, m.y, v.y);
  update(op.factors, g.z, p.z, m.z, v.z);
  update(op.factors, g.w, p.w, m.w, v.w);
  store_quad(op.parameter + at, left, aligned, p);
  store_quad(op.m + at, left, aligned, m);
  store_quad(op.v + at, left, aligned, v);
}

}  // namespace

cudaError_t adamw(const AdamW& op, cudaStream_t stream) {
  if (op.count < 1) return cudaErrorInvalidValue;
  return gpu::launch(adamw_kernel, quad_blocks<kThreads>(op.count), dim3(kThreads), 0, stream, op,
                     quads_aligned(op.gradient, op.parameter, op.m, op.v));
}

}  // namespace bitnet::cuda
