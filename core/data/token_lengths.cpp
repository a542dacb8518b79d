// SPDX-License-Identifier: MIT
#include "core/data/token_lengths.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>

#include "core/base/error.h"

namespace bitnet {

TokenLengths::TokenLengths(const Tokenizer& tokenizer)
    : lengths_(static_cast<std::size_t>(tokenizer.vocab_size())) {
  for (std::size_t id = 0; id < lengths_.size(); ++id)
    lengths_[id] =
        static_cast<std::int32_t>(tokenizer.token_bytes(static_cast<std::int32_t>(id)).size());
}

std::int64_t TokenLengths::bytes_of(TokenSpan tokens) const {
  return leading(tokens, std::numeric_limits<std::int64_t>::max()).bytes;
}

TokenLengths::Part TokenLengths::leading(TokenSpan tokens, std::int64_t max_bytes) const {
  std::array<std::int32_t, 4096> ids;
  std::int64_t bytes = 0;
  for (std::size_t first = 0; first < tokens.size(); first += ids.size()) {
    const std::size_t count = std::min(ids.size(), tokens.size() - first);
    tokens.copy(first, std::span(ids).first(count));
    for (std::size_t i = 0; i < count; ++i) {
      BITNET_CHECK(ids[i] >= 0 && static_cast<std::size_t>(ids[i]) < lengths_.size(),
                   "token {} is not one of the tokenizer's {}", ids[i], lengths_.size());
      const std::int64_t length = lengths_[static_cast<std::size_t>(ids[i])];
      if (length > max_bytes - bytes && bytes > 0) return {tokens.first(first + i), bytes};
      bytes += length;
    }
  }
  return {tokens, bytes};
}

bool reads_bytes(const Tokenizer& tokenizer) {
  if (tokenizer.vocab_size() != 256) return false;
  for (std::int32_t id = 0; id < 256; ++id) {
    const char byte = static_cast<char>(static_cast<std::uint8_t>(id));
    if (tokenizer.token_bytes(id) != std::string_view(&byte, 1)) return false;
  }
  return true;
}

}  // namespace bitnet
