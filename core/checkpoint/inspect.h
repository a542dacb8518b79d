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

#include "core/model/model_config.h"
#include "core/model/parameters.h"

namespace bitnet {

struct FloatStatistics {  // over the finite values
  double min = 0, max = 0, mean = 0, std = 0;
  std::int64_t non_finite = 0;
};

struct TensorReport {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t bytes = 0;
  std::optional<FloatStatistics> values;  // F32 and BF16
  // Projections of a quantised model: what is stored, or for latent weights what they would be
  // quantised to.
  std::optional<CodeCounts> codes;
  std::optional<double> weight_scale;  // the mean over groups
};

struct InspectReport {
  std::filesystem::path file;
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
