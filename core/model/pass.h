// SPDX-License-Identifier: MIT
// What every layer needs to know about the current forward or backward pass.
#pragma once

#include "core/backend/backend.h"
#include "core/model/activations.h"
#include "core/model/kv_cache.h"
#include "core/model/model_config.h"

namespace bitnet {

// How the products of the projections are computed.
enum class ProductMode : std::uint8_t {
  float32,  // the float twin
  integer,  // int8 activations x ternary codes, exact in int32
  mixed,    // float product of operands that are partly quantised: weight-only models and the
            // quantisation warm-up
};

// Places of a model where dropout acts; part of the counter, so that no two masks share a number.
enum class DropoutSite : std::uint64_t { embedding = 0, attention = 1, feed_forward = 2 };

struct Pass {
  Backend& backend;
  const ModelConfig& config;
  Activations& activations;
  ConstTensorView rope_table;  // [max_position_embeddings, E]
  ProductMode mode = ProductMode::float32;
  float quantized_amount = 1;  // λ of the quantisation warm-up
  std::int64_t batch = 1, tokens = 0;
  KvCache* cache = nullptr;               // incremental generation: batch is 1
  const DropoutState* dropout = nullptr;  // null: off
  GradientPrecision gradient_precision = GradientPrecision::int8;  // of integer products

  std::int64_t rows() const { return batch * tokens; }
  std::int64_t first_position() const { return cache == nullptr ? 0 : cache->length(); }

  bool has_dropout() const { return dropout != nullptr && config.dropout != 0; }

  TensorView rows_of(Tensor& buffer, std::int64_t width) const {
    return leading(buffer, {rows(), width});
  }

  // y = dropout(x); returns x untouched when dropout is off. The same call on gradients is its
  // backward.
  TensorView apply_dropout(TensorView x, DropoutSite site, std::int64_t layer, TensorView y) const;
};

}  // namespace bitnet
