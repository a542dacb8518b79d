// SPDX-License-Identifier: MIT
// The vocabulary in the metadata of a GGUF file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/gguf/gguf_file.h"
#include "core/gguf/gguf_writer.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet {

// What a byte model's 256 tokens are written as.
enum class GgufByteTokens : std::uint8_t {
  rwkv,  // "\x00" … "\xff": every byte string is encoded as it is
  gpt2,  // GPT-2's byte alphabet without merges: for readers that know only that; invalid UTF-8 is
         // replaced by their word splitting
};

struct GgufVocabulary {
  std::shared_ptr<const Tokenizer> tokenizer;  // null: one that we do not compute
  std::string fault;                           // then: what it is
  std::vector<std::string> warnings;
};
// Throws FormatError for a vocabulary that is damaged, or larger than the model's `vocab_size`.
GgufVocabulary read_gguf_vocabulary(const GgufFile& file, std::int64_t vocab_size);

// Adds the keys by which a reader tokenizes as `tokenizer` does; ids up to vocab_size that have no
// token get names that never occur. Throws UsageError for tokenizers that the format cannot say.
void add_gguf_vocabulary(const Tokenizer& tokenizer, std::int64_t vocab_size,
                         GgufByteTokens byte_tokens, GgufMetadata& metadata);

}  // namespace bitnet
