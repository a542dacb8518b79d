// SPDX-License-Identifier: MIT
#include "core/checkpoint/inspect.h"

#include <algorithm>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/checkpoint/model_file.h"

namespace bitnet {
namespace {

using Entry = SafetensorsFile::Entry;

std::vector<float> values_of(const Entry& entry) {
  std::vector<float> values(static_cast<std::size_t>(entry.elements()));
  decode_floats(entry, 0, values);
  return values;
}

double mean_of(const Entry& entry) {
  double sum = 0;
  for (const float value : values_of(entry)) sum += value;
  return sum / static_cast<double>(std::max<std::int64_t>(1, entry.elements()));
}

// The tensors that the configuration asks for, by name.
class Expectation {
 public:
  Expectation(const SafetensorsFile& file, const ModelConfig& config, WeightForm form,
              std::vector<std::string>& warnings)
      : file_(file), warnings_(warnings) {
    // No real model has fewer tensors than layers; this bounds the list.
    if (static_cast<std::uint64_t>(config.num_hidden_layers) > file.entries().size()) {
      warnings.push_back(fmt::format("the configuration has {} layers, the file only {} tensors",
                                     config.num_hidden_layers, file.entries().size()));
      return;
    }
    for (ExpectedTensor& tensor : expected_tensors(config, form)) {
      std::string name = tensor.name;
      tensors_.emplace(std::move(name), std::move(tensor));
    }
  }

  void compare() {
    for (const auto& [name, expected] : tensors_) {
      const Entry* entry = file_.find(name);
      if (entry == nullptr) {
        warnings_.push_back(fmt::format("tensor '{}' is missing", name));
      } else if (!fits(*entry)) {
        warnings_.push_back(fmt::format(
            "tensor '{}' is {} {}, expected {} {}", name, entry->dtype, shape_text(entry->shape),
            expected.packed ? "U8" : "F32, BF16 or F16", shape_text(expected.shape)));
      }
    }
    for (const Entry& entry : file_.entries()) {
      if (!tensors_.empty() && !tensors_.contains(entry.name)) {
        warnings_.push_back(fmt::format("unknown tensor {}", printable(entry.name)));
      }
    }
  }

  bool fits(const Entry& entry) const {
    const auto found = tensors_.find(entry.name);
    return found != tensors_.end() && found->second.shape == entry.shape &&
           (found->second.packed ? entry.dtype == "U8" : entry.is_float());
  }
  bool is_packed(const Entry& entry) const {
    return fits(entry) && tensors_.find(entry.name)->second.packed;
  }

 private:
  const SafetensorsFile& file_;
  std::vector<std::string>& warnings_;
  std::map<std::string, ExpectedTensor> tensors_;
};

bool is_projection(const std::string& name) { return name.ends_with("_proj.weight"); }

// Without a configuration, U8 weights with a scale beside them are taken for packed ones.
bool looks_packed(const SafetensorsFile& file, const Entry& entry) {
  return entry.dtype == "U8" && file.find(weight_scale_name(entry.name)) != nullptr;
}

void report_packed(const SafetensorsFile& file, const Entry& entry, TensorReport& report) {
  report.codes = count_codes(entry.bytes);
  const Entry* scale = file.find(weight_scale_name(entry.name));
  if (scale != nullptr && scale->is_float()) report.weight_scale = mean_of(*scale);
}

}  // namespace

InspectReport inspect_file(const std::filesystem::path& path) {
  const SafetensorsFile file(find_model_file(path));
  InspectReport report;
  report.file = file.path();
  report.file_bytes = file.file_bytes();
  report.metadata = file.metadata();
  try {
    report.config = read_model_config(file);
    report.form = stored_form(file, *report.config);
  } catch (const Error& error) {
    report.warnings.push_back(fmt::format("no model configuration: {}", error.what()));
  }
  std::optional<Expectation> expected;
  if (report.config) {
    expected.emplace(file, *report.config, report.form, report.warnings);
    expected->compare();
  }

  for (const Entry& entry : file.entries()) {
    TensorReport tensor{entry.name, entry.dtype, entry.shape, entry.bytes.size(), {}, {}, {}};
    const std::vector<float> values = entry.is_float() ? values_of(entry) : std::vector<float>();
    if (entry.is_float()) tensor.values = float_statistics(values);
    if (expected ? expected->is_packed(entry) : looks_packed(file, entry)) {
      report_packed(file, entry, tensor);
    } else if (expected && report.config->quantized() && is_projection(entry.name) &&
               expected->fits(entry) && tensor.values->non_finite == 0) {
      report_latent_projection(values, entry.shape[0], entry.shape[1],
                               report.config->weight_quantizer(), tensor);
    }
    for (std::string& warning : value_warnings(tensor))
      report.warnings.push_back(std::move(warning));
    report.tensors.push_back(std::move(tensor));
  }
  return report;
}

}  // namespace bitnet
