// SPDX-License-Identifier: MIT
// A model small enough to damage its files byte by byte, with weights that are exact in every
// format.
#pragma once

#include <memory>
#include <vector>

#include "tests/support/tiny_model.h"

namespace bitnet::test {

inline ModelConfig small_config(const std::string& linear = "b158", std::int64_t layers = 2) {
  ModelConfig config = tiny_config(linear);
  config.vocab_size = 4;
  config.intermediate_size = 64;
  config.num_hidden_layers = layers;
  config.num_key_value_heads = 1;
  return config;
}

// Multiples of 1/32 by a fixed rule: the same on every machine.
inline std::unique_ptr<Transformer> make_small_model(Backend& backend, const ModelConfig& config) {
  auto model = std::make_unique<Transformer>(backend, config, WeightForm::latent);
  std::size_t index = 0;
  for (Parameter& parameter : model->parameters().all()) {
    std::vector<float> values(static_cast<std::size_t>(parameter.spec.shape.elements()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto pattern = static_cast<int>((7 * i + i / 5 + i / 11 + index) % 13) - 6;
      const float base = parameter.spec.role == TensorRole::norm_gain ? 1.0f : 0.0f;
      values[i] = base + 0.03125f * static_cast<float>(pattern);
    }
    backend.copy_from_host(values.data(), parameter.value);
    ++index;
  }
  model->refresh_quantized();
  return model;
}

}  // namespace bitnet::test
