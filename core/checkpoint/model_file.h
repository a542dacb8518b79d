// SPDX-License-Identifier: MIT
// Models on the disk: model.safetensors and config.json, latent (fp32) or packed (2-bit).
// docs/checkpoint_format.md says what the files hold. The configuration is also in the metadata of
// model.safetensors, so that this file alone is a model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/base/safetensors.h"
#include "core/checkpoint/model_config_json.h"
#include "core/model/transformer.h"

namespace bitnet {

struct ModelSource {
  std::filesystem::path file;    // the .safetensors file
  std::filesystem::path folder;  // where it is
  ModelConfig config;
  WeightForm form = WeightForm::latent;
  std::map<std::string, std::string> metadata;  // of the file
};

// The .safetensors file that `path` means: a run folder (or a link to one) means the checkpoint
// that its `latest` points to, a checkpoint or packed folder its model.safetensors. Throws Error
// saying what was looked for.
std::filesystem::path find_model_file(const std::filesystem::path& path);

// The configuration of a model file: from its metadata, else from the config.json beside it. Throws
// FormatError.
ModelConfig read_model_config(const SafetensorsFile& file);

// Throws Error when there is no model at `path`, FormatError when its files are not a whole model:
// every tensor that the configuration asks for must be there with its shape and dtype, and no
// other. Scales are checked too, codes only by load_model().
ModelSource resolve_model(const std::filesystem::path& path);

// The model in the form it is stored in, ready to run. A packed one reads its weights where they
// lie in the file, which stays mapped (and must not be changed in place) as long as the model
// lives.
// Throws as resolve_model() does, and for codes that are none.
std::unique_ptr<Transformer> load_model(Backend& backend, const std::filesystem::path& path);

// Fills a latent transformer from what resolve_model(path) finds, which must be latent and compute
// the same function (dropout and initial weights may differ). Throws FormatError naming the first
// difference.
void load_parameters(const std::filesystem::path& path, Transformer& transformer);

// Writes folder/model.safetensors (fp32) and folder/config.json. `extra_metadata` goes beside the
// configuration.
void save_latent(Transformer& transformer, const std::filesystem::path& folder,
                 const std::map<std::string, std::string>& extra_metadata = {});

struct PackedReport {
  std::uint64_t packed_bytes = 0;  // of the packed model file
  std::int64_t weights = 0;        // of the whole model
  std::int64_t projection_weights = 0;
  double bits_per_projection_weight = 0;  // codes and scales
  double bits_per_weight = 0;             // whole file
  CodeCounts codes;
};

// Writes a packed folder: config.json, generation_config.json, model.safetensors with codes and
// scales of every projection; all else as `float_dtype`; `extra_metadata` goes beside the
// configuration. It is made beside its place; `verify` is called with the finished folder, and
// unless that throws the folder is moved to its place. An existing folder is refused, or replaced
// with `force` if it holds nothing but a packed model. Throws UsageError for a float model.
PackedReport save_packed(
    Transformer& transformer, const std::filesystem::path& folder, FloatDtype float_dtype,
    bool force, const std::map<std::string, std::string>& extra_metadata = {},
    const std::function<void(const std::filesystem::path& written)>& verify = {});

// A tensor of a model file as the configuration demands it.
struct ExpectedTensor {
  std::string name;
  bool packed = false;  // U8, else F32, BF16 or F16
  bool scale = false;   // weight scales: finite and positive
  std::vector<std::int64_t> shape;

  std::int64_t elements() const;
};
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config, WeightForm form);

// Packed when a projection of the model is stored as U8.
WeightForm stored_form(const SafetensorsFile& file, const ModelConfig& config);

}  // namespace bitnet
