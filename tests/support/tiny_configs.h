// SPDX-License-Identifier: MIT
// One tiny model of each kind, and how far apart two of them are.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/tiny_model.h"

namespace bitnet::test {

inline std::vector<ModelConfig> tiny_configs() {
  std::vector<ModelConfig> list;
  for (const std::string& profile : profile_names()) list.push_back(tiny_config("", profile));
  list.push_back(tiny_config("float"));
  ModelConfig config = tiny_config("b158");
  config.num_key_value_heads = 2;
  config.weight_group_size = 64;
  list.push_back(config);
  config = tiny_config("b158");
  config.activation_bits = 0;
  config.tie_word_embeddings = false;
  list.push_back(config);
  return list;
}

inline std::string describe(const ModelConfig& c) {
  return c.profile + " " + c.linear + " activation_bits " + std::to_string(c.activation_bits);
}

// |x - y| / |y| in the Euclidean norm.
inline double distance(const std::vector<float>& x, const std::vector<float>& y) {
  if (x.size() != y.size()) return INFINITY;
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    difference += (double(x[i]) - y[i]) * (double(x[i]) - y[i]);
    size += double(y[i]) * y[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace bitnet::test
