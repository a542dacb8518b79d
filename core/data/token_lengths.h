// SPDX-License-Identifier: MIT
// How many bytes of text tokens stand for: what turns nats per token into bits per byte.
#pragma once

#include <cstdint>
#include <vector>

#include "core/data/token_span.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet {

class TokenLengths {
 public:
  explicit TokenLengths(const Tokenizer& tokenizer);

  // The sum of the tokens' bytes; special tokens have none. It equals the length of the text for
  // tokenizers that are lossless.
  std::int64_t bytes_of(TokenSpan tokens) const;

  // The longest leading part that stands for at most max_bytes, or else for one token's.
  struct Part {
    TokenSpan tokens;
    std::int64_t bytes = 0;
  };
  Part leading(TokenSpan tokens, std::int64_t max_bytes) const;

 private:
  std::vector<std::int32_t> lengths_;  // by id
};

// Whether id = byte, so that a text is its own tokens.
bool reads_bytes(const Tokenizer& tokenizer);

}  // namespace bitnet
