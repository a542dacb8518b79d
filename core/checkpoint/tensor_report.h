// SPDX-License-Identifier: MIT
// What one tensor of a model holds, and what is suspicious about it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/quant/ternary.h"

namespace bitnet {

struct FloatStatistics {  // over the finite values
  double min = 0, max = 0, mean = 0, std = 0;
  std::int64_t non_finite = 0;
};
FloatStatistics float_statistics(std::span<const float> values);

struct TensorReport {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t bytes = 0;
  std::optional<FloatStatistics> values;  // of floats
  // Projections of a quantised model: what is stored, or for latent weights what they would be
  // quantised to.
  std::optional<CodeCounts> codes;
  std::optional<double> weight_scale;  // the mean over groups
};

// Adds codes and scale that latent weights [rows, columns] stand for.
void report_latent_projection(std::span<const float> weights, std::int64_t rows,
                              std::int64_t columns, const WeightQuantizer& quantizer,
                              TensorReport& report);

// One line each: values that are not finite, a tensor of zeros, …
std::vector<std::string> value_warnings(const TensorReport& report);

}  // namespace bitnet
