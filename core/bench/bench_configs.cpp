// SPDX-License-Identifier: MIT
#include "core/bench/bench_configs.h"

namespace bitnet {
namespace {

constexpr const char* kData = "data/enwik8";  // a config must name its data; bench makes its own

}  // namespace

RunConfig bench_inference_config() {
  RunConfig config;
  apply_profile("bitnet-relu2", config.model);
  config.model.vocab_size = 512;
  config.model.hidden_size = 256;
  config.model.intermediate_size = 768;
  config.model.num_hidden_layers = 8;
  config.model.num_attention_heads = 4;
  config.model.max_position_embeddings = 1024;
  config.data.path = kData;
  config.train.sequence_length = 256;
  return config;
}

RunConfig bench_training_config() {
  RunConfig config;
  apply_profile("bitnet-faq", config.model);
  config.model.hidden_size = 256;
  config.model.intermediate_size = 1024;
  config.model.num_hidden_layers = 6;
  config.model.num_attention_heads = 4;
  config.model.max_position_embeddings = 256;
  config.model.rms_norm_eps = 1e-6;
  config.model.tie_word_embeddings = false;
  config.model.hidden_act = "relu2";
  config.model.gated_mlp = false;
  config.data.path = kData;
  config.train.sequence_length = 256;
  config.train.per_device_train_batch_size = 8;
  config.train.learning_rate = 1e-3;
  return config;
}

}  // namespace bitnet
