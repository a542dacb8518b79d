// SPDX-License-Identifier: MIT
#include "core/model/kv_cache.h"

#include "core/base/parallel.h"

namespace bitnet {
namespace {

// Up to here the cache takes all its memory at once, since that makes it quicker to read; a larger
// one takes memory as it is filled, which most are not.
constexpr std::int64_t kStreamedBytes = std::int64_t{64} << 20;

}  // namespace

std::int64_t kv_cache_bytes(const ModelConfig& config, std::int64_t tokens, DType dtype) {
  const std::int64_t width = config.kv_heads() * config.head_size();
  return 2 * config.num_hidden_layers * tokens * width * size_of(dtype);
}

KvCache::KvCache(Backend& backend, const ModelConfig& config, std::int64_t capacity, DType dtype)
    : capacity_(capacity), room_(tile_count(capacity, kCacheTile) * kCacheTile), dtype_(dtype) {
  BITNET_CHECK(capacity >= 1 && capacity <= config.max_position_embeddings,
               "a cache of {} tokens, expected 1 to max_position_embeddings = {}", capacity,
               config.max_position_embeddings);
  BITNET_CHECK(dtype == DType::f32 || dtype == DType::f16, "a cache of {}, expected f32 or f16",
               to_string(dtype));
  const Shape shape{2 * config.num_hidden_layers * room_, config.kv_heads(), config.head_size()};
  rows_ = kv_cache_bytes(config, room_, dtype) <= kStreamedBytes
              ? backend.make_streamed_tensor(dtype, shape)
              : backend.make_tensor(dtype, shape);
}

void KvCache::advance(std::int64_t tokens) {
  BITNET_CHECK(tokens >= 0 && length_ + tokens <= capacity_, "{} tokens after {} in a cache of {}",
               tokens, length_, capacity_);
  length_ += tokens;
}

std::unique_ptr<RecordedOperations>& KvCache::one_token(ConstTensorView token, std::uint64_t model,
                                                        std::uint64_t activations) {
  if (recorded_token_ != token.raw() || recorded_model_ != model ||
      recorded_activations_ != activations) {
    one_token_.reset();
  }
  recorded_token_ = token.raw();
  recorded_model_ = model;
  recorded_activations_ = activations;
  return one_token_;
}

}  // namespace bitnet
