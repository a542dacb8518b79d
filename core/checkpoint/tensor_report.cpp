// SPDX-License-Identifier: MIT
#include "core/checkpoint/tensor_report.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/config_io.h"
#include "core/base/error.h"

namespace bitnet {

FloatStatistics float_statistics(std::span<const float> values) {
  FloatStatistics s;
  s.min = std::numeric_limits<double>::infinity();
  s.max = -s.min;
  double sum = 0;
  for (const float value : values) {
    if (!std::isfinite(value)) {
      ++s.non_finite;
      continue;
    }
    s.min = std::min<double>(s.min, value);
    s.max = std::max<double>(s.max, value);
    sum += value;
  }
  const auto finite = static_cast<double>(std::ssize(values) - s.non_finite);
  if (finite == 0) {
    s.min = s.max = 0;
    return s;
  }
  s.mean = sum / finite;
  double squares = 0;  // a second pass: exact where mean(x²) - mean² would cancel
  for (const float value : values)
    if (std::isfinite(value)) squares += (value - s.mean) * (value - s.mean);
  s.std = std::sqrt(squares / finite);
  return s;
}

void report_latent_projection(std::span<const float> weights, std::int64_t rows,
                              std::int64_t columns, const WeightQuantizer& quantizer,
                              TensorReport& report) {
  std::vector<std::int8_t> codes(weights.size());
  std::vector<float> scales(static_cast<std::size_t>(scale_count(quantizer, rows, columns)));
  quantize_weights(quantizer, weights, rows, columns, codes, scales);
  CodeCounts counts;
  for (const std::int8_t code : codes)
    ++(code < 0 ? counts.minus : code > 0 ? counts.plus : counts.zero);
  double sum = 0;
  for (const float scale : scales) sum += scale;
  report.codes = counts;
  report.weight_scale = sum / static_cast<double>(scales.size());
}

std::vector<std::string> value_warnings(const TensorReport& report) {
  std::vector<std::string> warnings;
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
  if (!report.values) return warnings;
  const FloatStatistics& v = *report.values;
  if (v.non_finite > 0)
    warnings.push_back(fmt::format("tensor {}: {} values are not finite", name, v.non_finite));
  if (v.non_finite > 0 || report.bytes == 0) return warnings;
  // A fresh norm gain is all ones and a scale is one number.
  std::int64_t elements = 1;
  for (const std::int64_t dim : report.shape) elements *= dim;
  const bool one_value_is_normal = elements == 1 || report.name.ends_with("norm.weight") ||
                                   report.name.ends_with(".weight_scale");
  if (v.min == 0 && v.max == 0) {
    warnings.push_back(fmt::format("tensor {}: all values are 0", name));
  } else if (v.min == v.max && !one_value_is_normal) {
    warnings.push_back(fmt::format("tensor {}: all values are {}", name, v.min));
  }
  return warnings;
}

}  // namespace bitnet
