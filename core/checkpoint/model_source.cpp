// SPDX-License-Identifier: MIT
// From a path on the command line to a checked model file.
#include <algorithm>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/checkpoint/model_file.h"
#include "core/checkpoint/model_metadata.h"
#include "core/checkpoint/run_folder.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Entry = SafetensorsFile::Entry;

fs::path model_in_folder(const fs::path& folder) {
  const fs::path file = folder / "model.safetensors";
  if (looks_like_checkpoint(folder) && !is_complete_checkpoint(folder)) {
    throw Error(
        fmt::format("{}: is an incomplete checkpoint (it has no file COMPLETE); use an earlier one",
                    folder.string()));
  }
  if (fs::exists(file)) return file;
  if (fs::exists(folder / "model.safetensors.index.json")) {
    throw Error(fmt::format("{}: holds a model in several files, expected one model.safetensors",
                            folder.string()));
  }
  if (const auto checkpoint = newest_checkpoint(folder)) return model_in_folder(*checkpoint);
  throw Error(
      fmt::format("{}: holds no model; looked for model.safetensors, for 'latest' and for "
                  "checkpoint-*/COMPLETE",
                  folder.string()));
}

struct ConfigText {
  json object;
  std::string path;  // for messages
};

ConfigText read_config_text(const SafetensorsFile& file) {
  const std::string path = file.path().string();
  if (const auto version = file.metadata().find(kFormatKey);
      version != file.metadata().end() && version->second != kFormatVersion) {
    throw FormatError(path, 8,
                      fmt::format("written in model format {}; this program reads format {}",
                                  printable(version->second), kFormatVersion));
  }
  if (const auto found = file.metadata().find(kConfigKey); found != file.metadata().end()) {
    const std::string where = path + " (__metadata__." + kConfigKey + ")";
    return {parse_json(found->second, where), where};
  }
  const fs::path beside = file.path().parent_path() / "config.json";
  if (!fs::exists(beside)) {
    throw FormatError(
        path, 8,
        fmt::format("the configuration is missing: expected it in __metadata__.{} or in {}",
                    kConfigKey, beside.string()));
  }
  return {parse_json(read_text_file(beside, kMaxConfigBytes), beside.string()), beside.string()};
}

std::string dtype_text(const ExpectedTensor& expected) {
  return expected.packed ? "U8" : "F32, BF16 or F16";
}

void check_tensor(const SafetensorsFile& file, const ExpectedTensor& expected) {
  const std::string path = file.path().string();
  const Entry* entry = file.find(expected.name);
  if (entry == nullptr) {
    throw FormatError(path, 8,
                      fmt::format("tensor '{}' is missing; expected {} {}", expected.name,
                                  dtype_text(expected), shape_text(expected.shape)));
  }
  const bool dtype_fits = expected.packed ? entry->dtype == "U8" : entry->is_float();
  if (!dtype_fits || entry->shape != expected.shape) {
    throw FormatError(
        path, entry->offset,
        fmt::format("tensor '{}' is {} {}, expected {} {}", expected.name, entry->dtype,
                    shape_text(entry->shape), dtype_text(expected), shape_text(expected.shape)));
  }
  if (expected.scale) {
    std::vector<float> scales(static_cast<std::size_t>(entry->elements()));
    decode_floats(*entry, 0, scales);
    for (std::size_t i = 0; i < scales.size(); ++i) {
      if (scales[i] > 0 && scales[i] <= std::numeric_limits<float>::max()) continue;
      throw FormatError(path, entry->offset + i * entry->bytes.size() / scales.size(),
                        fmt::format("tensor '{}': scale {}, expected a positive finite number",
                                    expected.name, scales[i]));
    }
  }
}

void check_tensors(const SafetensorsFile& file, const ModelConfig& config, WeightForm form) {
  const std::string path = file.path().string();
  // Before anything is sized by the configuration.
  if (static_cast<std::uint64_t>(config.num_hidden_layers) > file.entries().size()) {
    throw FormatError(path, 8,
                      fmt::format("the configuration has {} layers, but the file only {} tensors",
                                  config.num_hidden_layers, file.entries().size()));
  }
  std::set<std::string, std::less<>> known;
  for (const ExpectedTensor& expected : expected_tensors(config, form)) {
    check_tensor(file, expected);
    known.insert(expected.name);
  }
  for (const Entry& entry : file.entries()) {
    if (known.contains(entry.name)) continue;
    throw FormatError(
        path, entry.offset,
        fmt::format(
            "unknown tensor {}; this file is not the {} model that its configuration describes",
            printable(entry.name), form == WeightForm::packed ? "packed" : "latent"));
  }
}

}  // namespace

fs::path find_model_file(const fs::path& path) {
  std::error_code code;
  if (!fs::exists(path, code)) {
    const auto target = pointed_path(path);
    throw Error(fmt::format(
        "{}: {}; expected a run folder, a checkpoint folder, a packed or Hugging Face folder, or a "
        ".safetensors or .gguf "
        "file",
        path.string(),
        target ? "leads to " + target->string() + ", which does not exist" : "does not exist"));
  }
  if (fs::is_directory(path)) return model_in_folder(path);
  // Where there are no symbolic links, `latest` and `best` are text files.
  const std::string name = path.filename().string();
  if (name == "latest" || name == "best") {
    const auto target = pointed_path(path);
    if (target && fs::is_directory(*target, code)) return model_in_folder(*target);
  }
  return path;
}

WeightForm stored_form(const SafetensorsFile& file, const ModelConfig& config) {
  const bool packed =
      config.quantized() &&
      std::any_of(file.entries().begin(), file.entries().end(), [](const Entry& entry) {
        return entry.dtype == "U8" && entry.name.ends_with("_proj.weight");
      });
  return packed ? WeightForm::packed : WeightForm::latent;
}

ModelConfig read_model_config(const SafetensorsFile& file) {
  const ConfigText text = read_config_text(file);
  const ModelConfig config = config_from_json(text.object, text.path);
  if (stored_form(file, config) == WeightForm::packed) check_scale_sense(text.object, text.path);
  return config;
}

ModelSource check_model(const SafetensorsFile& file) {
  ModelSource source;
  source.file = file.path();
  source.folder = file.path().parent_path();
  source.config = read_model_config(file);
  source.form = stored_form(file, source.config);
  source.metadata = file.metadata();
  check_tensors(file, source.config, source.form);
  return source;
}

ModelSource resolve_model(const fs::path& path) {
  return check_model(SafetensorsFile(find_model_file(path)));
}

std::int64_t ExpectedTensor::elements() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config, WeightForm form) {
  std::vector<ExpectedTensor> list;
  for (const TensorSpec& spec : list_tensors(config)) {
    const std::vector<std::int64_t> shape = dims_of(spec.shape);
    if (form == WeightForm::latent || spec.role != TensorRole::projection || !config.quantized()) {
      list.push_back({spec.name, false, false, shape});
      continue;
    }
    const std::int64_t group = config.weight_group_size;
    list.push_back({spec.name, true, false, {shape[0] / 4, shape[1]}});
    list.push_back({weight_scale_name(spec.name), false, true,
                    group == 0 ? std::vector<std::int64_t>{1}
                               : std::vector<std::int64_t>{shape[0], shape[1] / group}});
  }
  return list;
}

}  // namespace bitnet
