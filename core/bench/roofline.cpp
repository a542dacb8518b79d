// SPDX-License-Identifier: MIT
#include "core/bench/roofline.h"

namespace bitnet {
namespace {

constexpr double kMultiplyAdd = 2;

}  // namespace

std::string Operations::bound_by(const MachineRates& rates) const {
  return int8 / rates.int8_dot >= floats / rates.float_dot ? "int8_dot" : rates.float_name;
}

std::int64_t projection_weights(const ModelConfig& config) {
  std::int64_t weights = 0;
  for (const TensorSpec& spec : list_tensors(config))
    if (spec.role == TensorRole::projection) weights += spec.shape.elements();
  return weights;
}

Operations forward_operations(const ModelConfig& config) {
  const double product = kMultiplyAdd * static_cast<double>(projection_weights(config));
  return config.quantized_activations() ? Operations{.int8 = product}
                                        : Operations{.floats = product};
}

Operations training_operations(const ModelConfig& config, GradientPrecision backward) {
  Operations all = forward_operations(config);
  const double product = all.int8 + all.floats;  // by the input's gradient, and by the weight's
  const bool int8 = config.quantized_activations() && backward == GradientPrecision::int8,
             int8_dx = int8 && config.weight_group_size == 0;  // see Backend::bit_linear_backward()
  (int8_dx ? all.int8 : all.floats) += product;
  (int8 ? all.int8 : all.floats) += product;
  return all;
}

double attention_operations(const ModelConfig& config, std::int64_t tokens, bool training) {
  const double keys = static_cast<double>(tokens + 1) / 2;
  const auto width = static_cast<double>(config.num_attention_heads * config.head_size());
  const double product = kMultiplyAdd * keys * width;  // q · kᵀ, or its result · v
  return (training ? 7 : 2) * product * static_cast<double>(config.num_hidden_layers);
}

double head_operations(const ModelConfig& config, bool training) {
  return (training ? 3 : 1) * kMultiplyAdd *
         static_cast<double>(config.vocab_size * config.hidden_size);
}

}  // namespace bitnet
