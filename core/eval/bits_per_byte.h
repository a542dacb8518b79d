// SPDX-License-Identifier: MIT
// Bits per byte of a text under a model: every token is scored exactly once, in order, with
// context. Models with different tokenizers are compared by it, because what is divided by is the
// same for all: the bytes of the text.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/data/token_span.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet {

// What is scored. Borrows the tokens.
struct EvalText {
  TokenSpan tokens;
  std::int64_t bytes = 0;                 // of the text that the tokens stand for
  std::int32_t start = 0;                 // what the model sees before the first token
  std::int64_t vocabulary = kByteValues;  // ids are below it

  EvalText() = default;
  // Bytes are tokens already; byte 0 (end of document) precedes them.
  template <typename Range>
  requires std::convertible_to<const Range&, std::span<const std::uint8_t>> EvalText(
      const Range& text)
      : tokens(text), bytes(static_cast<std::int64_t>(tokens.size())) {}
  // Tokens of `tokenizer`, whose document_start() precedes them. Where they begin with it themselves
  // (it standing for no bytes) it is not scored. A tokenizer that has none gives the model nothing to
  // predict the first token from, so that one precedes the others; neither it nor its bytes count.
  EvalText(const Tokenizer& tokenizer, TokenSpan text, std::int64_t text_bytes);
};

struct EvalOptions {
  std::int64_t context = 0;  // tokens of a window; 0: max_position_embeddings
  std::int64_t stride =
      0;  // tokens scored by every window but the first; 0: half of the context, at least 1
  std::int64_t batch = 8;       // windows computed at once; changes no bit of the result
  DType kv_cache = DType::f32;  // f16: keys and values rounded as by a cache of f16
  std::function<void(std::int64_t tokens_done)> progress;  // after each batch; may be empty
};

struct EvalResult {
  double nats = 0;  // sum over all tokens of -ln p(token | the tokens before it)
  std::int64_t tokens = 0, bytes = 0;
  double bits_per_byte = 0;  // nats / bytes / ln 2
  double perplexity = 0;     // e^(nats / tokens), per token
  double seconds = 0;
  double tokens_per_second = 0;  // tokens scored, not positions computed
};

// Positions [begin, end) of the input stream go through the model at once, and the targets of
// [first_scored, end) count. Position p of the input is token p - 1 of the text (position 0 is
// EvalText::start), and its target is token p.
struct EvalWindow {
  std::int64_t begin = 0, end = 0, first_scored = 0;
  bool operator==(const EvalWindow&) const = default;
};

// The windows that score positions [0, tokens) once each, in order. All are min(context, tokens)
// long: the first scores all of its positions, each later one its last `stride`, and the last one
// what is left. 1 <= stride <= context.
std::vector<EvalWindow> plan_windows(std::int64_t tokens, std::int64_t context,
                                     std::int64_t stride);

// How many windows of `length` tokens are computed at once where `batch` were asked for: fewer where
// the logits of a large vocabulary would take gigabytes.
std::int64_t eval_batch(const ModelConfig& config, std::int64_t batch, std::int64_t length);

// The model's codes must be those of its weights (Transformer::refresh_quantized). Throws
// UsageError for a context or stride that is impossible or a model with fewer token ids than the
// text may hold, and Error for an empty text. Losses are summed in double, by windows in order.
EvalResult evaluate(Transformer& model, const EvalText& text, const EvalOptions& options = {});

// What the model says about the first window of a text, for comparison with other programs.
struct TextLogits {
  std::vector<std::int32_t> inputs;  // [T], T <= 1024 and max_position_embeddings: what it has seen
  std::vector<float> logits;         // [T, vocab_size]
};
// Throws as evaluate() does.
TextLogits first_logits(Transformer& model, const EvalText& text, DType kv_cache = DType::f32);

}  // namespace bitnet
