// SPDX-License-Identifier: MIT
// Float matrices that hold a ternary model: only -s, 0 and +s within each group of weights that
// shares a scale s (TriLM's published files). Their codes and scales are read off, never computed.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/model/model_config.h"

namespace bitnet {

// Elements [first, first + to.size()) of a tensor.
using ReadElements =
    std::function<void(const std::string& name, std::int64_t first, std::span<float> to)>;

// The largest weight_group_size with which every projection of the model is exactly ternary, 0 for
// one scale a matrix; nothing where there is none, or where all weights are 0. Ordinary float
// weights are recognised by their first row.
std::optional<std::int64_t> find_ternary_groups(const ModelConfig& config,
                                                const ReadElements& read);

struct TernaryMatrix {
  std::vector<std::int8_t> codes;  // [rows, columns]
  std::vector<float> scales;       // [scale_count()]
};

// Codes and scales of such a matrix (b158 of that group size). A group of zeros has no scale of its
// own and gets the least that a quantiser gives.
TernaryMatrix split_ternary(std::span<const float> weights, std::int64_t rows, std::int64_t columns,
                            std::int64_t group_size);

}  // namespace bitnet
