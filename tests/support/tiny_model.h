// SPDX-License-Identifier: MIT
// The smallest models that exercise everything: two layers, hidden size 64.
#pragma once

#include <string>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/model/transformer.h"
#include "tests/support/tensors.h"

namespace bitnet::test {

// `profile` as in apply_profile(); `linear` empty: the profile's own.
inline ModelConfig tiny_config(const std::string& linear = "",
                               const std::string& profile = "bitnet") {
  ModelConfig config;
  apply_profile(profile, config);
  if (!linear.empty()) config.linear = linear;
  config.vocab_size = 32;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.max_position_embeddings = 32;
  // Large enough for attention and the norms to be far from their linear range.
  config.initializer_range = 0.2;
  return config;
}

// Gains away from 1, so that a forgotten gain shows.
inline void randomize_gains(Transformer& model, std::uint32_t seed) {
  for (Parameter& p : model.parameters().all()) {
    if (p.spec.role != TensorRole::norm_gain) continue;
    const auto values = random_numbers(seed++, p.spec.shape.elements(), 0.2, 1.0);
    const std::vector<float> gain(values.begin(), values.end());
    model.backend().copy_from_host(gain.data(), p.value);
  }
}

// A latent model with random weights and gains.
struct TinyModel : Transformer {
  TinyModel(Backend& device, const ModelConfig& config, std::uint64_t seed)
      : Transformer(device, config, WeightForm::latent) {
    initialize(seed);
    randomize_gains(*this, static_cast<std::uint32_t>(1000 * seed + 1));
    refresh_quantized();
  }
};

// The packed twin of a latent model: codes, scales and float parameters copied.
struct PackedTwin : Transformer {
  explicit PackedTwin(Transformer& latent)
      : Transformer(latent.backend(), latent.config(), WeightForm::packed) {
    for (Parameter& p : parameters().all()) {
      const Parameter& from = latent.parameters().at(p.spec.name);
      if (p.value) backend().copy(from.value, p.value);
      if (!p.packed) continue;
      backend().copy(from.packed, p.packed);
      backend().copy(from.weight_scale, p.weight_scale);
    }
    refresh_quantized();
  }
};

// Logits [B * T, V] of a batch on the host, keys and values rounded as in a cache of this type.
inline std::vector<float> logits_of(Transformer& model, const std::vector<std::int32_t>& tokens,
                                    std::int64_t batch, DType kv_cache = DType::f32) {
  Backend& backend = model.backend();
  const std::int64_t length = std::int64_t(tokens.size()) / batch;
  Activations activations(backend, model.config(), batch, length, Keep::nothing, true, DType::f32,
                          kv_cache);
  const Tensor input = to_device(backend, {batch, length}, tokens);
  return floats_of(backend, model.forward(input, activations));
}

}  // namespace bitnet::test
