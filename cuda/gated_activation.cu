// SPDX-License-Identifier: MIT
// One thread for four elements.
#include "cuda/gated_activation.h"

#include "cuda/activations.cuh"
#include "cuda/gpu.h"
#include "cuda/row_vectors.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;

BITNET_DEVICE RowPart part_from(std::size_t at, std::int64_t count, bool aligned) {
  const std::int64_t left = count - static_cast<std::int64_t>(at);
  return {static_cast<int>(left < kQuad ? left : kQuad), aligned};  // may be negative
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gated_activation_kernel(GatedActivation op, bool aligned) {
  const auto at = static_cast<std::size_t>(quad_of_thread<kThreads>());
  const RowPart part = part_from(at, op.count, aligned);
  Quad h;
  load_as<T>(op.input, at, part, h);
  store_as<T>(op.h, at, part, h);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gated_activation_backward_kernel(GatedActivationBackward op, bool aligned) {
  const auto at = static_cast<std::size_t>(quad_of_thread<kThreads>());
  const RowPart part = part_from(at, op.count, aligned);
  Quad gate, up, dh, dgate, dup;
  load_gated<T>(op.input, at, part, gate, up);
  load_as<T>(op.dh, at, part, dh);
  gated_backward(op.input.activation, gate, up, dh, dgate, dup);
  store_as<T>(op.dgate, at, part, dgate);
  if (op.dup.data != nullptr) store_as<T>(op.dup, at, part, dup);
}

}  // namespace

cudaError_t gated_activation(const GatedActivation& op, cudaStream_t stream) {
  if (op.count < 1 || !one_type(op.input.gate, op.input.up, op.h)) return cudaErrorInvalidValue;
  auto* const kernel =
      op.h.bf16 ? gated_activation_kernel<__nv_bfloat16> : gated_activation_kernel<float>;
  return gpu::launch(kernel, quad_blocks<kThreads>(op.count), dim3(kThreads), 0, stream, op,
                     rows_aligned(op.input) && quads_aligned(op.h));
}

cudaError_t gated_activation_backward(const GatedActivationBackward& op, cudaStream_t stream) {
  if (op.count < 1 || !one_type(op.input.gate, op.input.up, op.dh, op.dgate, op.dup)) {
    return cudaErrorInvalidValue;
  }
  auto* const kernel = op.dh.bf16 ? gated_activation_backward_kernel<__nv_bfloat16>
                                  : gated_activation_backward_kernel<float>;
  return gpu::launch(kernel, quad_blocks<kThreads>(op.count), dim3(kThreads), 0, stream, op,
                     rows_aligned(op.input) && quads_aligned(op.dh, op.dgate, op.dup));
}

}  // namespace bitnet::cuda
