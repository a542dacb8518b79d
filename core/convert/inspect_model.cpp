// SPDX-License-Identifier: MIT
#include "core/convert/inspect_model.h"

#include <algorithm>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

std::uint64_t size_on_disk(const fs::path& path) {
  if (!fs::is_directory(path)) return fs::file_size(path);
  std::uint64_t total = 0;
  for (const auto& item : fs::directory_iterator(path))
    if (item.path().extension() == ".safetensors") total += item.file_size();
  return total;
}

double mean(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum / static_cast<double>(std::max<std::size_t>(1, values.size()));
}

TensorReport report_of(const ModelReader& reader, const ExpectedTensor& tensor) {
  TensorReport report{tensor.name, "U8", tensor.shape, 1, {}, {}, {}};
  for (const std::int64_t dim : tensor.shape) report.bytes *= static_cast<std::uint64_t>(dim);
  if (tensor.packed) {
    std::vector<std::uint8_t> packed(report.bytes);
    reader.read_packed(tensor.name, packed);
    report.codes = count_codes(packed);
    const std::string scale = weight_scale_name(tensor.name);
    std::vector<float> scales(static_cast<std::size_t>(
        scale_count(reader.config().weight_quantizer(), 4 * tensor.shape[0], tensor.shape[1])));
    reader.read_floats(scale, scales);
    report.weight_scale = mean(scales);
    return report;
  }
  std::vector<float> values(report.bytes);
  reader.read_floats(tensor.name, values);
  const bool bf16 = reader.float_dtype(tensor.name) == FloatDtype::bf16;
  report.dtype = bf16 ? "BF16" : "F32";
  report.bytes *= bf16 ? 2 : 4;
  report.values = float_statistics(values);
  const ModelConfig& config = reader.config();
  if (config.quantized() && tensor.name.ends_with("_proj.weight") && report.values->non_finite == 0)
    report_latent_projection(values, tensor.shape[0], tensor.shape[1], config.weight_quantizer(),
                             report);
  return report;
}

}  // namespace

InspectReport inspect_model(const ModelReader& reader) {
  InspectReport report;
  report.file = reader.path();
  report.format = reader.description();
  report.file_bytes = size_on_disk(reader.path());
  report.metadata = reader.metadata();
  report.config = reader.config();
  report.form = reader.form();
  report.warnings = reader.warnings();
  for (const ExpectedTensor& tensor : expected_tensors(reader.config(), reader.form())) {
    TensorReport of_tensor = report_of(reader, tensor);
    for (std::string& warning : value_warnings(of_tensor)) {  // a reader may have said it already
      if (std::find(report.warnings.begin(), report.warnings.end(), warning) ==
          report.warnings.end())
        report.warnings.push_back(std::move(warning));
    }
    report.tensors.push_back(std::move(of_tensor));
  }
  return report;
}

}  // namespace bitnet
