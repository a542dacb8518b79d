// SPDX-License-Identifier: MIT
// Latent model files, and reading of both forms.
#include "core/checkpoint/model_file.h"

#include <nlohmann/json.hpp>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/checkpoint/model_metadata.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// check_model() has made sure that the entry exists and fits.
void load_tensor(Backend& backend, const SafetensorsFile& file, const std::string& name,
                 TensorView destination) {
  const SafetensorsFile::Entry* entry = file.find(name);
  BITNET_CHECK(entry != nullptr && entry->elements() == destination.elements(),
               "{} does not fit tensor '{}'", file.path().string(), name);
  if (entry->dtype == "BF16") {
    std::vector<float> floats(static_cast<std::size_t>(entry->elements()));
    decode_floats(*entry, 0, floats);
    backend.copy_from_host(floats.data(), destination);
  } else {
    backend.copy_from_host(entry->bytes.data(), destination);
  }
}

void load_tensors(const SafetensorsFile& file, Transformer& transformer) {
  Backend& backend = transformer.backend();
  for (Parameter& parameter : transformer.parameters().all()) {
    const std::string& name = parameter.spec.name;
    if (parameter.value) {
      load_tensor(backend, file, name, parameter.value);
    } else {
      load_tensor(backend, file, name, parameter.packed);
      load_tensor(backend, file, weight_scale_name(name), parameter.weight_scale);
    }
  }
  transformer.refresh_quantized();
}

// What decides the function that the model computes.
ordered_json function_fields(const ModelConfig& config) {
  ModelConfig copy = resolved(config);
  ordered_json fields = write_fields([&](FieldVisitor& visitor) { copy.visit_fields(visitor); });
  for (const char* key : {"profile", "dropout", "initializer_range"}) fields.erase(key);
  return fields;
}

}  // namespace

std::unique_ptr<Transformer> load_model(Backend& backend, const fs::path& path) {
  const SafetensorsFile file(find_model_file(path));
  const ModelSource source = check_model(file);
  auto transformer = std::make_unique<Transformer>(backend, source.config, source.form);
  load_tensors(file, *transformer);
  return transformer;
}

void load_parameters(const fs::path& path, Transformer& transformer) {
  BITNET_CHECK(transformer.parameters().form() == WeightForm::latent, "the transformer is packed");
  const SafetensorsFile file(find_model_file(path));
  const ModelSource source = check_model(file);
  if (source.form == WeightForm::packed) {
    throw FormatError(source.file.string(), 8,
                      "holds packed weights, expected the latent ones of a training checkpoint");
  }
  const ordered_json stored = function_fields(source.config);
  const ordered_json expected = function_fields(transformer.config());
  for (const auto& wanted : expected.items()) {
    if (stored.at(wanted.key()) == wanted.value()) continue;
    throw FormatError(source.file.string(), 8,
                      fmt::format("is of another model: its {} is {}, expected {}", wanted.key(),
                                  stored.at(wanted.key()).dump(), wanted.value().dump()));
  }
  load_tensors(file, transformer);
}

void save_latent(Transformer& transformer, const fs::path& folder,
                 const std::map<std::string, std::string>& extra_metadata) {
  BITNET_CHECK(transformer.parameters().form() == WeightForm::latent,
               "a packed model has no latent weights to save");
  std::vector<float> buffer;
  std::vector<TensorToWrite> tensors;
  for (Parameter& parameter : transformer.parameters().all()) {
    tensors.push_back({.name = parameter.spec.name,
                       .dtype = "F32",
                       .shape = dims_of(parameter.spec.shape),
                       .fetch = [&transformer, &buffer, &parameter] {
                         buffer = host_floats(transformer.backend(), parameter.value);
                         return buffer.data();
                       }});
  }
  make_folders(folder);
  auto metadata = model_metadata(transformer.config(), WeightForm::latent, FloatDtype::f32);
  metadata.insert(extra_metadata.begin(), extra_metadata.end());
  write_safetensors(folder / "model.safetensors", tensors, metadata);
  write_file(
      folder / "config.json",
      config_to_json(transformer.config(), WeightForm::latent, FloatDtype::f32).dump(2) + "\n");
}

std::map<std::string, std::string> model_metadata(const ModelConfig& config, WeightForm form,
                                                  FloatDtype dtype) {
  return {{kConfigKey, config_to_json(config, form, dtype).dump()}, {kFormatKey, kFormatVersion}};
}

std::vector<float> host_floats(Backend& backend, ConstTensorView tensor) {
  std::vector<float> floats(static_cast<std::size_t>(tensor.elements()));
  backend.copy_to_host(tensor, floats.data());
  return floats;
}

std::vector<std::int64_t> dims_of(const Shape& shape) {
  std::vector<std::int64_t> dims;
  for (int axis = 0; axis < shape.rank(); ++axis) dims.push_back(shape[axis]);
  return dims;
}

}  // namespace bitnet
