// SPDX-License-Identifier: MIT
#include "core/checkpoint/inspect.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/checkpoint/model_file.h"

namespace bitnet {
namespace {

using Entry = SafetensorsFile::Entry;

// Calls visit(float) for each value; a few kilobytes at a time.
template <typename Visit>
void for_each_value(const Entry& entry, const Visit& visit) {
  std::vector<float> chunk(std::size_t{1} << 14);
  const std::int64_t total = entry.elements();
  for (std::int64_t first = 0; first < total;) {
    const auto count =
        std::min<std::int64_t>(static_cast<std::int64_t>(chunk.size()), total - first);
    const std::span<float> values(chunk.data(), static_cast<std::size_t>(count));
    decode_floats(entry, first, values);
    for (const float value : values) visit(value);
    first += count;
  }
}

FloatStatistics float_statistics(const Entry& entry) {
  FloatStatistics s;
  s.min = std::numeric_limits<double>::infinity();
  s.max = -s.min;
  double sum = 0;
  for_each_value(entry, [&](float value) {
    if (!std::isfinite(value)) {
      ++s.non_finite;
      return;
    }
    s.min = std::min<double>(s.min, value);
    s.max = std::max<double>(s.max, value);
    sum += value;
  });
  const auto finite = static_cast<double>(entry.elements() - s.non_finite);
  if (finite == 0) {
    s.min = s.max = 0;
    return s;
  }
  s.mean = sum / finite;
  double squares = 0;  // a second pass: exact where mean(x²) - mean² would cancel
  for_each_value(entry, [&](float value) {
    if (std::isfinite(value)) squares += (value - s.mean) * (value - s.mean);
  });
  s.std = std::sqrt(squares / finite);
  return s;
}

double mean_of(const Entry& entry) {
  double sum = 0;
  for_each_value(entry, [&](float value) { sum += value; });
  return sum / static_cast<double>(std::max<std::int64_t>(1, entry.elements()));
}

// Codes and scale that these latent weights stand for.
void report_latent_projection(const Entry& entry, const WeightQuantizer& quantizer,
                              TensorReport& report) {
  const std::int64_t rows = entry.shape[0], columns = entry.shape[1];
  std::vector<float> weights(static_cast<std::size_t>(entry.elements()));
  decode_floats(entry, 0, weights);
  std::vector<std::int8_t> codes(weights.size());
  std::vector<float> scales(static_cast<std::size_t>(scale_count(quantizer, rows, columns)));
  quantize_weights(quantizer, weights, rows, columns, codes, scales);
  CodeCounts counts;
  for (const std::int8_t code : codes) {
    ++(code < 0 ? counts.minus : code > 0 ? counts.plus : counts.zero);
  }
  double sum = 0;
  for (const float scale : scales) sum += scale;
  report.codes = counts;
  report.weight_scale = sum / static_cast<double>(scales.size());
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
            expected.packed ? "U8" : "F32 or BF16", shape_text(expected.shape)));
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

void add_value_warnings(const TensorReport& report, bool gain_or_scale,
                        std::vector<std::string>& warnings) {
  const std::string name = printable(report.name);
  if (report.codes && report.codes->invalid > 0) {
    warnings.push_back(fmt::format("tensor {}: {} packed values are 3, expected 0, 1 or 2", name,
                                   report.codes->invalid));
  }
  if (report.codes && report.codes->total() > 1) {
    const CodeCounts& c = *report.codes;
    if (c.zero == c.total()) warnings.push_back(fmt::format("tensor {}: all codes are 0", name));
    if (c.minus == c.total() || c.plus == c.total())
      warnings.push_back(fmt::format("tensor {}: all codes are equal", name));
  }
  if (!report.values) return;
  const FloatStatistics& v = *report.values;
  if (v.non_finite > 0)
    warnings.push_back(fmt::format("tensor {}: {} values are not finite", name, v.non_finite));
  if (v.non_finite > 0 || report.bytes == 0) return;
  if (v.min == 0 && v.max == 0) {
    warnings.push_back(fmt::format("tensor {}: all values are 0", name));
  } else if (v.min == v.max && !gain_or_scale) {
    warnings.push_back(fmt::format("tensor {}: all values are {}", name, v.min));
  }
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
    if (entry.is_float()) tensor.values = float_statistics(entry);
    if (expected ? expected->is_packed(entry) : looks_packed(file, entry)) {
      report_packed(file, entry, tensor);
    } else if (expected && report.config->quantized() && is_projection(entry.name) &&
               expected->fits(entry) && tensor.values->non_finite == 0) {
      report_latent_projection(entry, report.config->weight_quantizer(), tensor);
    }
    // A fresh norm gain is all ones and a scale is one number.
    const bool one_value_is_normal = entry.elements() == 1 || entry.name.ends_with("norm.weight") ||
                                     entry.name.ends_with(".weight_scale");
    add_value_warnings(tensor, one_value_is_normal, report.warnings);
    report.tensors.push_back(std::move(tensor));
  }
  return report;
}

}  // namespace bitnet
