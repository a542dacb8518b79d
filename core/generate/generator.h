// SPDX-License-Identifier: MIT
// Text from a model, token by token through a KV cache, as far past the context length as asked.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/generate/sampler.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet {

struct GenerateOptions {
  std::int64_t max_new_tokens = 256;
  SamplerOptions sampler;
  std::vector<std::string> stop;  // ends the text, wherever tokens meet in it; not part of it
  // Tokenizer::end_tokens() (byte 0 where tokens are bytes) end the text; not part of it.
  bool stop_at_end_of_document = true;
  std::vector<std::int32_t> end_tokens;  // others that do so: those that end a chat's turn
  DType kv_cache = DType::f32;           // or f16: half the memory, each key and value rounded once
};

enum class StopReason : std::uint8_t { length, stop_string, end_of_document };

struct GenerateStats {
  std::int64_t prompt_tokens = 0;     // computed; Tokenizer::document_start() included
  std::int64_t dropped_tokens = 0;    // tokens at the front of a prompt too long for the context
  std::int64_t generated_tokens = 0;  // sampled; those of a stop string or the end included
  double prompt_seconds = 0, generate_seconds = 0;
  StopReason reason = StopReason::length;
};

// Bytes of the cache and the activations that a Generator allocates at most.
std::int64_t generator_bytes(Backend& backend, const ModelConfig& config, DType kv_cache);

// The model sees the token that begins a document, the prompt, and what it has written, as in
// training and evaluation. It sees at most C = max_position_embeddings tokens: when one more would not fit, the
// last C / 2 (at least 1) are kept and computed again from position 0, so what follows is exactly
// what the model would write after those tokens alone. A longer prompt is cut by the same rule.
class Generator {
 public:
  // Throws UsageError for options out of range, and for a tokenizer with more ids than the model
  // has. Ids of the model that the tokenizer does not have are never written.
  Generator(Transformer& model, const GenerateOptions& options,
            std::shared_ptr<const Tokenizer> tokenizer = byte_tokenizer());

  // Gives out bytes as they become certain, perhaps a part of a UTF-8 sequence; never bytes of a stop
  // string. Repeated calls are independent of each other.
  using Emit = std::function<void(std::string_view bytes)>;
  GenerateStats generate(std::string_view prompt, const Emit& emit);
  // After exactly these tokens: a prompt that holds special ones, such as a chat's turns.
  GenerateStats generate(std::vector<std::int32_t> prompt, const Emit& emit);

 private:
  void reserve(std::int64_t tokens);
  // Appends tokens to the cache; the logits after the last one are then in logits_.
  void extend(std::span<const std::int32_t> tokens);
  // Makes the model see history_, which has grown by `added` tokens.
  void advance(std::int64_t added);

  Transformer& model_;
  GenerateOptions options_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  Sampler sampler_;
  std::int64_t context_;  // C
  KvCache cache_;
  // For the tokens computed at once; remade for more of them, up to a bound.
  std::unique_ptr<Activations> activations_;
  Tensor tokens_;                      // i32 [activations_->max_tokens]
  std::vector<std::int32_t> history_;  // every token so far
  std::vector<float> logits_;          // [tokenizer_->vocab_size()]
};

}  // namespace bitnet
