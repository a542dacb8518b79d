// SPDX-License-Identifier: MIT
// The keys of a vocabulary in GGUF, for its reader and its writer.
#pragma once

#include <string>
#include <vector>

#include "core/convert/gguf_vocabulary.h"

namespace bitnet {

inline constexpr const char* kGgufModel = "tokenizer.ggml.model";
inline constexpr const char* kGgufTokens = "tokenizer.ggml.tokens";
inline constexpr const char* kGgufScores = "tokenizer.ggml.scores";
inline constexpr const char* kGgufTypes = "tokenizer.ggml.token_type";
inline constexpr const char* kGgufMerges = "tokenizer.ggml.merges";
inline constexpr const char* kGgufPre = "tokenizer.ggml.pre";
inline constexpr const char* kGgufUnknown = "tokenizer.ggml.unknown_token_id";
inline constexpr const char* kGgufBos = "tokenizer.ggml.bos_token_id";
inline constexpr const char* kGgufEos = "tokenizer.ggml.eos_token_id";
inline constexpr const char* kGgufEot = "tokenizer.ggml.eot_token_id";
inline constexpr const char* kGgufAddBos = "tokenizer.ggml.add_bos_token";
inline constexpr const char* kGgufAddEos = "tokenizer.ggml.add_eos_token";
inline constexpr const char* kGgufAddSpace = "tokenizer.ggml.add_space_prefix";
inline constexpr const char* kGgufRemoveSpaces = "tokenizer.ggml.remove_extra_whitespaces";

// The tokens of the bytes 0 to 255, as a reader of that kind spells them.
std::vector<std::string> gguf_byte_names(GgufByteTokens kind);

}  // namespace bitnet
