// SPDX-License-Identifier: MIT
#include "core/eval/energy.h"

#include <array>
#include <cstddef>

namespace bitnet {
namespace {

constexpr double kJoulePerPicojoule = 1e-12;

std::size_t column(Arithmetic arithmetic) { return static_cast<std::size_t>(arithmetic); }

}  // namespace

double add_picojoule(Process process, Arithmetic arithmetic) {
  constexpr std::array<double, 3> k45{0.9, 0.4, 0.03}, k7{0.38, 0.16, 0.007};  // fp32, fp16, int8
  return (process == Process::nm45 ? k45 : k7)[column(arithmetic)];
}

double multiply_picojoule(Process process, Arithmetic arithmetic) {
  constexpr std::array<double, 3> k45{3.7, 1.1, 0.2}, k7{1.31, 0.34, 0.07};
  return (process == Process::nm45 ? k45 : k7)[column(arithmetic)];
}

OperationCounts count_operations(const ModelConfig& config, std::int64_t tokens) {
  OperationCounts counts;
  const auto t = static_cast<double>(tokens);
  for (const TensorSpec& spec : list_tensors(config)) {
    if (spec.role != TensorRole::projection) continue;
    const auto n = static_cast<double>(spec.shape[0]), k = static_cast<double>(spec.shape[1]);
    counts.projection_macs += t * n * k;
    counts.projection_scalings += t * (n + k);
  }
  const auto width = static_cast<double>(config.num_attention_heads * config.head_size());
  counts.attention_macs = 2 * t * t * width * static_cast<double>(config.num_hidden_layers);
  return counts;
}

Energy float_energy(const OperationCounts& counts, Process process, Arithmetic arithmetic) {
  const double macs = counts.projection_macs + counts.attention_macs;
  return {macs * multiply_picojoule(process, arithmetic) * kJoulePerPicojoule,
          macs * add_picojoule(process, arithmetic) * kJoulePerPicojoule};
}

Energy bitnet_energy(const OperationCounts& counts, Process process, bool quantized_activations) {
  const Arithmetic additions = quantized_activations ? Arithmetic::int8 : Arithmetic::fp16;
  const double multiplications = counts.projection_scalings + counts.attention_macs;
  return {multiplications * multiply_picojoule(process, Arithmetic::fp16) * kJoulePerPicojoule,
          (counts.projection_macs * add_picojoule(process, additions) +
           counts.attention_macs * add_picojoule(process, Arithmetic::fp16)) *
              kJoulePerPicojoule};
}

}  // namespace bitnet
