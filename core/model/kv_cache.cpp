// SPDX-License-Identifier: MIT
#include "core/model/kv_cache.h"

namespace bitnet {

KvCache::KvCache(Backend& backend, const ModelConfig& config, std::int64_t capacity)
    : capacity_(capacity) {
  BITNET_CHECK(capacity >= 1 && capacity <= config.max_position_embeddings,
               "a cache of {} tokens, expected 1 to max_position_embeddings = {}", capacity,
               config.max_position_embeddings);
  const Shape shape{capacity, config.kv_heads(), config.head_size()};
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    keys_.push_back(backend.make_tensor(DType::f32, shape));
    values_.push_back(backend.make_tensor(DType::f32, shape));
  }
}

void KvCache::advance(std::int64_t tokens) {
  BITNET_CHECK(tokens >= 0 && length_ + tokens <= capacity_, "{} tokens after {} in a cache of {}",
               tokens, length_, capacity_);
  length_ += tokens;
}

}  // namespace bitnet
