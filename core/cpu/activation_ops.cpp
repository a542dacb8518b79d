// SPDX-License-Identifier: MIT
// Gated activations, alone and with what stands behind them in a feed-forward: a norm and a
// quantisation. A fused row never leaves the first cache.
#include "core/cpu/norm_rows.h"

namespace bitnet::cpu {
namespace {

const ActivationKernels& kernels_of(const FloatKernels& table, Activation activation) {
  switch (activation) {
    case Activation::silu:
      return table.silu;
    case Activation::relu2:
      return table.relu2;
    case Activation::gelu:
      break;
  }
  return table.gelu;
}

// Where an optional operand continues after `offset` elements.
template <typename T>
T* at(T* data, std::int64_t offset) {
  return data == nullptr ? nullptr : data + offset;
}

}  // namespace

void CpuBackend::gated_activation(Activation activation, ConstTensorView gate, ConstTensorView up,
                                  TensorView y) {
  check_gated_activation(gate, up, y);
  const ActivationKernels& kernels = kernels_of(*float_, activation);
  const float *gates = gate.as<float>().data(), *ups = up.as<float>().data();
  float* to = y.as<float>().data();
  issue([this, forward = kernels.forward, gates, ups, to, size = gate.elements()](std::int64_t) {
    run_stretches(issued_team_, size, kStretch, [&](std::int64_t first, std::int64_t count) {
      forward(gates + first, at(ups, first), to + first, count);
    });
  });
}

void CpuBackend::gated_activation_backward(Activation activation, ConstTensorView gate,
                                           ConstTensorView up, ConstTensorView dy, TensorView dgate,
                                           TensorView dup) {
  check_gated_activation_backward(gate, up, dy, dgate, dup);
  const ActivationKernels& kernels = kernels_of(*float_, activation);
  const float *gates = gate.as<float>().data(), *ups = up.as<float>().data(),
              *from = dy.as<float>().data();
  float *gate_gradient = dgate.as<float>().data(), *up_gradient = dup.as<float>().data();
  run_stretches(team(), gate.elements(), kStretch, [&](std::int64_t first, std::int64_t count) {
    kernels.backward(gates + first, at(ups, first), from + first, gate_gradient + first,
                     at(up_gradient, first), count);
  });
}

void CpuBackend::gated_activation_quantize(Activation activation, ConstTensorView gate,
                                           ConstTensorView up, const NormArguments& norm,
                                           TensorView codes, TensorView act_scale,
                                           TensorView stats) {
  check_gated_activation_quantize(gate, up, norm, codes, act_scale, stats);
  const std::int64_t n = gate.dim(1);
  const RowNorm arguments = row_norm(norm.kind, norm.gain, norm.eps);
  const ActivationKernels& kernels = kernels_of(*float_, activation);
  const float *gates = gate.as<float>().data(), *ups = up.as<float>().data();
  std::int8_t* to = codes.as<std::int8_t>().data();
  float *scales = act_scale.as<float>().data(), *row_stats = stats.as<float>().data();
  issue([=, this, quantize = kernels.quantize, all_rows = gate.dim(0)](std::int64_t) {
    const ThreadScratch<float> row_scratch(thread_scratch_, issued_team_, n);
    run_stretches(issued_team_, all_rows, rows_per_stretch(n),
                  [&](std::int64_t first, std::int64_t rows) {
                    float* const scratch = row_scratch.get();
                    for (std::int64_t row = first; row < first + rows; ++row) {
                      scales[row] = quantize(gates + row * n, at(ups, row * n), n,
                                             row_stats == nullptr ? nullptr : &arguments, scratch,
                                             to + row * n, at(row_stats, row * 2));
                    }
                  });
  });
}

void CpuBackend::gated_activation_norm_backward(Activation activation, ConstTensorView gate,
                                                ConstTensorView up, const NormArguments& norm,
                                                ConstTensorView stats, ConstTensorView dy,
                                                TensorView dgate, TensorView dup,
                                                TensorView dgain) {
  check_gated_activation_norm_backward(gate, up, norm, stats, dy, dgate, dup, dgain);
  const std::int64_t n = gate.dim(1);
  const RowNorm arguments = row_norm(norm.kind, norm.gain, norm.eps);
  const ActivationKernels& kernels = kernels_of(*float_, activation);
  const float *gates = gate.as<float>().data(), *ups = up.as<float>().data(),
              *row_stats = stats.as<float>().data(), *from = dy.as<float>().data();
  float *gate_gradient = dgate.as<float>().data(), *up_gradient = dup.as<float>().data();
  const ThreadScratch<float> row_scratch(thread_scratch_, team(), 2 * n);
  run_gain_tiles(team(), *float_, reduction_scratch_, gate.dim(0), n, dgain,
                 [&](std::int64_t first, std::int64_t rows, float* gain_part) {
                   float* const scratch = row_scratch.get();
                   for (std::int64_t row = first; row < first + rows; ++row) {
                     kernels.norm_backward(gates + row * n, at(ups, row * n), n, arguments,
                                           row_stats + row * 2, from + row * n, scratch,
                                           gate_gradient + row * n, at(up_gradient, row * n),
                                           gain_part);
                   }
                 });
}

}  // namespace bitnet::cpu
