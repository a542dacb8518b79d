// SPDX-License-Identifier: MIT
// Writing the packed 2-bit model folder, in Hugging Face's layout.
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/checkpoint/folder_in_progress.h"
#include "core/checkpoint/model_file.h"
#include "core/checkpoint/model_metadata.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

std::vector<std::uint16_t> round_to_bf16(const std::vector<float>& floats) {
  std::vector<std::uint16_t> result(floats.size());
  for (std::size_t i = 0; i < floats.size(); ++i) result[i] = to_bf16(floats[i]);
  return result;
}

// Copies of one tensor at a time, alive until the next is fetched.
struct HostCopy {
  std::vector<float> floats;
  std::vector<std::uint16_t> halves;
  std::vector<std::uint8_t> bytes;
};

std::vector<TensorToWrite> packed_tensors(Transformer& transformer, FloatDtype dtype,
                                          HostCopy& copy) {
  Backend& backend = transformer.backend();
  std::vector<TensorToWrite> tensors;
  const auto add_floats = [&](const std::string& name, ConstTensorView values, FloatDtype stored) {
    tensors.push_back({.name = name,
                       .dtype = stored == FloatDtype::bf16 ? "BF16" : "F32",
                       .shape = dims_of(values.shape()),
                       .fetch = [&backend, &copy, values, stored]() -> const void* {
                         copy.floats = host_floats(backend, values);
                         if (stored == FloatDtype::f32) return copy.floats.data();
                         copy.halves = round_to_bf16(copy.floats);
                         return copy.halves.data();
                       }});
  };
  for (Parameter& parameter : transformer.parameters().all()) {
    const std::string& name = parameter.spec.name;
    if (!parameter.packed) {
      add_floats(name, parameter.value, dtype);
      continue;
    }
    const ConstTensorView packed = parameter.packed;
    tensors.push_back({.name = name,
                       .dtype = "U8",
                       .shape = dims_of(packed.shape()),
                       .fetch = [&backend, &copy, packed]() -> const void* {
                         copy.bytes.resize(static_cast<std::size_t>(packed.bytes()));
                         backend.copy_to_host(packed, copy.bytes.data());
                         return copy.bytes.data();
                       }});
    // Stored, never recomputed: the mean of |W| of ternary weights is another number. fp32 keeps
    // the products bit-equal.
    add_floats(weight_scale_name(name), parameter.weight_scale, FloatDtype::f32);
  }
  return tensors;
}

PackedReport make_report(Transformer& transformer, const fs::path& file) {
  PackedReport report;
  report.packed_bytes = fs::file_size(file);
  std::int64_t projection_bytes = 0;
  for (Parameter& parameter : transformer.parameters().all()) {
    report.weights += parameter.spec.shape.elements();
    if (!parameter.packed) continue;
    report.projection_weights += parameter.spec.shape.elements();
    projection_bytes += parameter.packed.bytes() + parameter.weight_scale.bytes();
    const CodeCounts counts = transformer.backend().count_codes(parameter.packed);
    report.codes.minus += counts.minus;
    report.codes.zero += counts.zero;
    report.codes.plus += counts.plus;
    report.codes.invalid += counts.invalid;
  }
  report.bits_per_projection_weight =
      8.0 * static_cast<double>(projection_bytes) / static_cast<double>(report.projection_weights);
  report.bits_per_weight =
      8.0 * static_cast<double>(report.packed_bytes) / static_cast<double>(report.weights);
  return report;
}

}  // namespace

PackedReport save_packed(Transformer& transformer, const fs::path& folder, FloatDtype float_dtype,
                         bool force, const std::map<std::string, std::string>& extra_metadata,
                         const std::function<void(const fs::path&)>& verify) {
  const ModelConfig& config = transformer.config();
  if (!config.quantized()) {
    throw UsageError(
        "the model has float projections (linear = float), so there is nothing to pack; expected "
        "b158 or b1");
  }
  FolderInProgress output(folder, force);
  transformer.refresh_quantized();
  HostCopy copy;
  auto metadata = model_metadata(config, WeightForm::packed, float_dtype);
  metadata.insert(extra_metadata.begin(), extra_metadata.end());
  write_safetensors(output.path() / "model.safetensors",
                    packed_tensors(transformer, float_dtype, copy), metadata);
  write_file(output.path() / "config.json",
             config_to_json(config, WeightForm::packed, float_dtype).dump(2) + "\n");
  write_file(output.path() / "generation_config.json",
             ordered_json{{"bos_token_id", 0}, {"eos_token_id", 0}}.dump(2) + "\n");
  const PackedReport report = make_report(transformer, output.path() / "model.safetensors");
  if (verify) verify(output.path());
  output.move_to_target();
  return report;
}

}  // namespace bitnet
