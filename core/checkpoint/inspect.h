// SPDX-License-Identifier: MIT
// A look into any safetensors file: what it holds, tensor by tensor, and what is suspicious about
// it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/checkpoint/tensor_report.h"
#include "core/model/model_config.h"
#include "core/model/parameters.h"

namespace bitnet {

struct InspectReport {
  std::filesystem::path file;
  std::string format = "safetensors";  // of a model in another format, what it is
  std::uint64_t file_bytes = 0;
  std::map<std::string, std::string> metadata;
  std::optional<ModelConfig> config;
  WeightForm form = WeightForm::latent;  // with config only
  std::vector<TensorReport> tensors;     // in the order of the file
  std::vector<std::string> warnings;     // one line each
};

// `path` is what find_model_file() takes; the file needs no configuration. Memory is bounded by the
// largest tensor. Throws Error or FormatError only when the file cannot be read as safetensors;
// everything else that is wrong is a warning.
InspectReport inspect_file(const std::filesystem::path& path);

}  // namespace bitnet
