// SPDX-License-Identifier: MIT
// What the files of core/checkpoint and core/convert share about model.safetensors.
#pragma once

#include <map>
#include <string>

#include "core/checkpoint/model_file.h"

namespace bitnet {

inline constexpr const char* kConfigKey = "bitnet_config";  // the text of config.json
inline constexpr const char* kFormatKey = "bitnet_format";
inline constexpr const char* kFormatVersion = "1";

// resolve_model() of a file that is already open.
ModelSource check_model(const SafetensorsFile& file);

std::map<std::string, std::string> model_metadata(const ModelConfig& config, WeightForm form,
                                                  FloatDtype dtype);

// The tensor's values on the host, f32.
std::vector<float> host_floats(Backend& backend, ConstTensorView tensor);

std::vector<std::int64_t> dims_of(const Shape& shape);

}  // namespace bitnet
