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

using Entry = SafetensorsFile::Entry;

// check_model() has made sure that the entry exists and fits.
const Entry& entry_of(const SafetensorsFile& file, const std::string& name, std::int64_t elements) {
  const Entry* entry = file.find(name);
  BITNET_CHECK(entry != nullptr && entry->elements() == elements, "{} does not fit tensor '{}'",
               file.path().string(), name);
  return *entry;
}

void copy_floats(Backend& backend, const Entry& entry, TensorView destination) {
  if (entry.dtype != "F32") {
    std::vector<float> floats(static_cast<std::size_t>(entry.elements()));
    decode_floats(entry, 0, floats);
    backend.copy_from_host(floats.data(), destination);
  } else {
    backend.copy_from_host(entry.bytes.data(), destination);
  }
}

Tensor copied_floats(Backend& backend, const Entry& entry, const Shape& shape) {
  Tensor tensor = backend.make_tensor(DType::f32, shape);
  copy_floats(backend, entry, tensor);
  return tensor;
}

// 3 is the one 2-bit value that stands for no code.
void check_codes(Backend& backend, const SafetensorsFile& file, const Entry& entry,
                 ConstTensorView packed) {
  if (backend.valid_codes(packed)) return;
  const std::int64_t found = find_invalid_code(entry.bytes);
  if (found < 0)  // the file is mapped: somebody wrote to it after valid_codes() had looked
    throw FormatError(file.path().string(), entry.offset,
                      fmt::format("tensor '{}' was changed while it was read", entry.name));
  const auto place = static_cast<std::uint64_t>(found);
  throw FormatError(file.path().string(), entry.offset + place,
                    fmt::format("tensor '{}': a 2-bit value of 3 in byte {:#04x}, expected 0, 1 "
                                "or 2",
                                entry.name, entry.bytes[place]));
}

// The tensors of a packed model, in place where they can be.
TensorSource packed_source(Backend& backend, std::shared_ptr<const SafetensorsFile> file) {
  return [&backend, file = std::move(file)](const StoredTensor& wanted) {
    const Entry& entry = entry_of(*file, wanted.name, wanted.shape.elements());
    const bool bf16 = entry.dtype == "BF16";
    const bool widened = entry.dtype == "F16" || (bf16 && !wanted.may_be_bf16);
    if (widened) return copied_floats(backend, entry, wanted.shape);
    Tensor tensor =
        backend.adopt(file, entry.bytes.data(), bf16 ? DType::bf16 : wanted.dtype, wanted.shape);
    if (wanted.dtype == DType::u8) check_codes(backend, *file, entry, tensor);
    return tensor;
  };
}

TensorSource latent_source(Backend& backend, const SafetensorsFile& file) {
  return [&backend, &file](const StoredTensor& wanted) {
    return copied_floats(backend, entry_of(file, wanted.name, wanted.shape.elements()),
                         wanted.shape);
  };
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
  const auto file = std::make_shared<const SafetensorsFile>(find_model_file(path));
  const ModelSource source = check_model(*file);
  file->expect_whole_read();
  auto transformer = std::make_unique<Transformer>(backend, source.config, source.form,
                                                   source.form == WeightForm::packed
                                                       ? packed_source(backend, file)
                                                       : latent_source(backend, *file));
  transformer->refresh_quantized();
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
  for (Parameter& p : transformer.parameters().all())
    copy_floats(transformer.backend(), entry_of(file, p.spec.name, p.value.elements()), p.value);
  transformer.refresh_quantized();
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
  if (tensor.dtype() == DType::bf16) {
    Tensor widened = backend.make_tensor(DType::f32, tensor.shape());
    backend.convert(tensor, widened);
    backend.copy_to_host(widened, floats.data());
  } else {
    backend.copy_to_host(tensor, floats.data());
  }
  return floats;
}

std::vector<std::int64_t> dims_of(const Shape& shape) {
  std::vector<std::int64_t> dims;
  for (int axis = 0; axis < shape.rank(); ++axis) dims.push_back(shape[axis]);
  return dims;
}

}  // namespace bitnet
