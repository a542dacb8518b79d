// SPDX-License-Identifier: MIT
// Bits per byte of a text under a model: every byte is scored exactly once, in order, with context.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/model/transformer.h"

namespace bitnet {

struct EvalOptions {
  std::int64_t context = 0;  // tokens of a window; 0: max_position_embeddings
  std::int64_t stride =
      0;  // bytes scored by every window but the first; 0: half of the context, at least 1
  std::int64_t batch = 8;  // windows computed at once; changes no bit of the result
  std::function<void(std::int64_t bytes_done)> progress;  // after each batch; may be empty
};

struct EvalResult {
  double nats = 0;  // sum over all bytes of -ln p(byte | the bytes before it)
  std::int64_t bytes = 0;
  double bits_per_byte = 0;  // nats / bytes / ln 2
  double perplexity = 0;     // e^(nats / bytes), per byte
  double seconds = 0;
  double tokens_per_second = 0;  // bytes scored, not positions computed
};

// Positions [begin, end) of the input stream go through the model at once, and the targets of
// [first_scored, end) count. Position p of the input is byte p - 1 of the text (position 0 is byte
// 0, end of document), and its target is byte p.
struct EvalWindow {
  std::int64_t begin = 0, end = 0, first_scored = 0;
  bool operator==(const EvalWindow&) const = default;
};

// The windows that score positions [0, bytes) once each, in order. All are min(context, bytes)
// long: the first scores all of its positions, each later one its last `stride`, and the last one
// what is left. 1 <= stride <= context.
std::vector<EvalWindow> plan_windows(std::int64_t bytes, std::int64_t context, std::int64_t stride);

// The model's codes must be those of its weights (Transformer::refresh_quantized). Throws
// UsageError for a context or stride that is impossible, and Error for an empty text. Losses are
// summed in double, by windows in order.
EvalResult evaluate(Transformer& model, std::span<const std::uint8_t> text,
                    const EvalOptions& options = {});

}  // namespace bitnet
