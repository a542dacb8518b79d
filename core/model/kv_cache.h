// SPDX-License-Identifier: MIT
// Keys (after RoPE) and values of one sequence, for incremental generation.
#pragma once

#include <memory>

#include "core/backend/backend.h"
#include "core/model/model_config.h"

namespace bitnet {

// Of the keys and values of so many tokens.
std::int64_t kv_cache_bytes(const ModelConfig& config, std::int64_t tokens, DType dtype);

class KvCache {
 public:
  // capacity: tokens, at most config.max_position_embeddings. dtype: f32, or f16, which halves the
  // memory and rounds each key and value once.
  KvCache(Backend& backend, const ModelConfig& config, std::int64_t capacity,
          DType dtype = DType::f32);

  std::int64_t capacity() const { return capacity_; }
  std::int64_t length() const { return length_; }
  DType dtype() const { return dtype_; }
  void clear() { length_ = 0; }
  // Called once per extend(), after all layers have written their new rows.
  void advance(std::int64_t tokens);

  // What the device keeps of extending this cache by one token that lies there, with the model and
  // the activations of these unique numbers; empty when any of them is new.
  std::unique_ptr<RecordedOperations>& one_token(ConstTensorView token, std::uint64_t model,
                                                 std::uint64_t activations);

  // Tokens for which keys() and values() have room: capacity() rounded up.
  std::int64_t room() const { return room_; }
  // [room, G, E], filled by Backend::cached_attention().
  TensorView keys(std::int64_t layer) { return part(2 * layer); }
  TensorView values(std::int64_t layer) { return part(2 * layer + 1); }

 private:
  TensorView part(std::int64_t index) { return rows_.view().rows(index * room_, room_); }

  std::int64_t capacity_, room_, length_ = 0;
  DType dtype_;
  Tensor rows_;  // [layers, keys and values, room] of [G, E]
  std::unique_ptr<RecordedOperations> one_token_;
  const void* recorded_token_ = nullptr;
  std::uint64_t recorded_model_ = 0, recorded_activations_ = 0;
};

}  // namespace bitnet
