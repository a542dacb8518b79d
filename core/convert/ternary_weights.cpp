// SPDX-License-Identifier: MIT
#include "core/convert/ternary_weights.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"

namespace bitnet {
namespace {

// The one magnitude of the values that are not 0, starting from what is known of it (0: nothing).
bool has_one_magnitude(std::span<const float> values, float& magnitude) {
  for (const float value : values) {
    const float size = std::abs(value);
    if (size == 0 || size == magnitude) continue;
    if (magnitude != 0 || !std::isfinite(size)) return false;
    magnitude = size;
  }
  return true;
}

bool is_ternary(const TensorSpec& spec, const ReadElements& read, std::int64_t group_size,
                bool& any_weight) {
  const std::int64_t rows = spec.shape[0], columns = spec.shape[1];
  std::vector<float> row(static_cast<std::size_t>(columns));
  float of_matrix = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    read(spec.name, r * columns, row);
    if (group_size == 0) {
      if (!has_one_magnitude(row, of_matrix)) return false;
      any_weight = any_weight || of_matrix != 0;
      continue;
    }
    for (std::int64_t first = 0; first < columns; first += group_size) {
      float of_group = 0;
      const auto group = std::span<const float>(row).subspan(static_cast<std::size_t>(first),
                                                             static_cast<std::size_t>(group_size));
      if (!has_one_magnitude(group, of_group)) return false;
      any_weight = any_weight || of_group != 0;
    }
  }
  return true;
}

// 0 (the whole matrix), then what divides the rows of every projection, largest first.
std::vector<std::int64_t> possible_group_sizes(const ModelConfig& config) {
  const std::int64_t common = std::gcd(std::gcd(config.hidden_size, config.intermediate_size),
                                       config.num_attention_heads * config.head_size());
  std::vector<std::int64_t> sizes = {0};
  for (std::int64_t size = common; size >= 64; size -= 64)
    if (common % size == 0) sizes.push_back(size);
  return sizes;
}

}  // namespace

std::optional<std::int64_t> find_ternary_groups(const ModelConfig& config,
                                                const ReadElements& read) {
  const std::vector<TensorSpec> tensors = list_tensors(config);
  for (const std::int64_t size : possible_group_sizes(config)) {
    bool any_weight = false;
    const bool fits = std::all_of(tensors.begin(), tensors.end(), [&](const TensorSpec& spec) {
      return spec.role != TensorRole::projection || is_ternary(spec, read, size, any_weight);
    });
    if (fits) return any_weight ? std::optional(size) : std::nullopt;
  }
  return std::nullopt;
}

TernaryMatrix split_ternary(std::span<const float> weights, std::int64_t rows, std::int64_t columns,
                            std::int64_t group_size) {
  const auto groups =
      static_cast<std::size_t>(scale_count({.group_size = group_size}, rows, columns));
  const std::size_t size = weights.size() / groups;
  BITNET_CHECK(std::ssize(weights) == rows * columns && groups * size == weights.size(),
               "{} weights of a [{}, {}] matrix in {} groups", weights.size(), rows, columns,
               groups);
  TernaryMatrix result{std::vector<std::int8_t>(weights.size()), std::vector<float>(groups)};
  for (std::size_t g = 0; g < groups; ++g) {
    const auto group = weights.subspan(g * size, size);
    float magnitude = 0;
    BITNET_CHECK(has_one_magnitude(group, magnitude), "group {} is not ternary", g);
    result.scales[g] = magnitude == 0 ? kScaleEps : magnitude;
    for (std::size_t i = 0; i < size; ++i)
      result.codes[g * size + i] = static_cast<std::int8_t>((group[i] > 0) - (group[i] < 0));
  }
  return result;
}

}  // namespace bitnet
