// SPDX-License-Identifier: MIT
// Hugging Face's tokenizer.json of a byte-level BPE, to BpeData and back. What it can say and we do not compute is
// refused by name: a tokenizer that is nearly right gives models that are nearly right.
#pragma once

#include <string>
#include <string_view>

#include "core/tokenizer/tokenizer.h"

namespace bitnet {

// What a tokenizer.json is.
enum class TokenizerJsonKind : std::uint8_t { byte_level_bpe, sentencepiece };

struct TokenizerJson {
  TokenizerJsonKind kind = TokenizerJsonKind::byte_level_bpe;
  BpeData data;  // of byte_level_bpe; eos is in no tokenizer.json

  // Each byte a token, in order, and nothing else.
  bool only_bytes() const;
};

// Throws FormatError, with `path`.
TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& path);

std::string tokenizer_json_text(const BpeData& data);

}  // namespace bitnet
