// SPDX-License-Identifier: MIT
// config.json: one flat object of Hugging Face's keys and ours.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "core/model/model_config.h"
#include "core/model/parameters.h"

namespace bitnet {

// How a model file stores tensors that are not packed.
enum class FloatDtype : std::uint8_t { f32, bf16 };

// model_type is "bitnet" or "llama" where Hugging Face's class of that name computes the same
// function, else "bitnet_native".
nlohmann::ordered_json config_to_json(const ModelConfig& config, WeightForm form, FloatDtype dtype);

// "quantization_config" of our weights: scales multiply.
nlohmann::ordered_json quantization_config_json(WeightForm form);

// Keys that are neither Hugging Face's shape keys nor ours are ignored. Throws FormatError (with
// `path`) for an unknown model_type, a missing shape key, a wrong value, an impossible shape, and
// weights packed in a way that we cannot read.
ModelConfig config_from_json(const nlohmann::json& object, const std::string& path);

// Packed weights: the file must say that weight_scale multiplies the codes (linear_class
// "autobitlinear"); with "bitlinear", or nothing said, it may be the reciprocal, which the numbers
// cannot tell. Throws FormatError.
void check_scale_sense(const nlohmann::json& object, const std::string& path);

// The same configuration with the fields whose 0 means "derived" filled in.
ModelConfig resolved(ModelConfig config);

}  // namespace bitnet
