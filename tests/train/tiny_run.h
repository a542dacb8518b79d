// SPDX-License-Identifier: MIT
// The smallest run that exercises everything: two layers, hidden size 64, sequences of 16 bytes of
// a made-up text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/train/run_config.h"

namespace bitnet::test {

inline RunConfig tiny_run_config(const std::string& linear = "b158") {
  RunConfig config;
  config.model.linear = linear;
  config.model.hidden_size = 64;
  config.model.intermediate_size = 128;
  config.model.num_hidden_layers = 2;
  config.model.num_attention_heads = 2;
  config.model.max_position_embeddings = 16;
  config.data.path = "text";
  config.train.sequence_length = 16;
  config.train.per_device_train_batch_size = 2;
  config.train.max_steps = 8;
  config.train.warmup_steps = 2;
  config.train.learning_rate = 1e-2;
  config.train.logging_steps = 1;
  config.train.eval_steps = 3;
  config.train.eval_max_bytes = 100;
  config.train.save_steps = 4;
  config.train.sample_steps = 5;
  config.train.sample_bytes = 8;
  config.validate();
  return config;
}

// Words in an order that a model can learn a little of.
inline std::vector<std::uint8_t> tiny_text() {
  const char* const words[] = {"the ", "cat ", "sat ", "on ", "a ", "mat. "};
  std::string text;
  for (std::uint32_t i = 0; i < 800; ++i) text += words[(i * i + i / 7) % 6];
  return {text.begin(), text.end()};
}

}  // namespace bitnet::test
