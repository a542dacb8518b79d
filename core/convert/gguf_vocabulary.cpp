// SPDX-License-Identifier: MIT
#include "core/convert/gguf_vocabulary.h"

#include <algorithm>
#include <array>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/model/model_config.h"
#include "core/tokenizer/byte_alphabet.h"

namespace bitnet {
namespace {

constexpr const char* kModel = "tokenizer.ggml.model";
constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr const char* kPre = "tokenizer.ggml.pre";
constexpr const char* kBos = "tokenizer.ggml.bos_token_id";
constexpr const char* kEos = "tokenizer.ggml.eos_token_id";
constexpr const char* kEot = "tokenizer.ggml.eot_token_id";
constexpr const char* kAddBos = "tokenizer.ggml.add_bos_token";
constexpr const char* kAddEos = "tokenizer.ggml.add_eos_token";
constexpr const char* kAddSpace = "tokenizer.ggml.add_space_prefix";
constexpr const char* kMissingPre = "llama-bpe";  // what files without the key were made with

enum TokenType : std::int32_t { normal = 1, control = 3, user_defined = 4, unused = 5 };

// Control tokens by which llama.cpp's readers end a text too, whatever the keys say.
constexpr std::array<std::string_view, 5> kEndNames = {"<|eot_id|>", "<|im_end|>", "<|end|>",
                                                       "<|end_of_text|>", "<|endoftext|>"};

std::vector<std::string> byte_names(GgufByteTokens kind) {
  std::vector<std::string> names;
  for (int byte = 0; byte < kByteValues; ++byte)
    names.push_back(kind == GgufByteTokens::rwkv ? fmt::format("\\x{:02x}", byte)
                                                 : byte_character(static_cast<std::uint8_t>(byte)));
  return names;
}

struct Tokens {
  std::vector<std::string_view> names;
  std::vector<std::int64_t> types;  // as many
};

Tokens read_tokens(const GgufFile& file, std::int64_t vocab_size) {
  Tokens tokens{file.texts(kTokens), {}};
  const std::size_t count = tokens.names.size();
  if (count > static_cast<std::size_t>(vocab_size))
    file.refuse(kTokens,
                fmt::format("has {} tokens, but the embedding only {} rows", count, vocab_size));
  tokens.types.assign(count, TokenType::normal);
  if (file.has(kTypes)) tokens.types = file.integers(kTypes);
  if (tokens.types.size() != count)
    file.refuse(kTypes,
                fmt::format("has {} values, expected {}: one a token", tokens.types.size(), count));
  return tokens;
}

// Are the tokens the 256 bytes in order, and nothing else but padding?
bool are_bytes(const Tokens& tokens, GgufByteTokens kind) {
  const std::vector<std::string> names = byte_names(kind);
  if (tokens.names.size() < names.size()) return false;
  return std::equal(names.begin(), names.end(), tokens.names.begin()) &&
         std::all_of(tokens.types.begin() + kByteValues, tokens.types.end(),
                     [](std::int64_t type) { return type == TokenType::unused; });
}

std::optional<std::int32_t> read_id(const GgufFile& file, const char* key, const Tokens& tokens) {
  if (!file.has(key)) return std::nullopt;
  const auto last = static_cast<std::int64_t>(tokens.names.size()) - 1;
  return static_cast<std::int32_t>(file.integer(key, 0, last));
}

std::vector<std::int32_t> read_end_tokens(const GgufFile& file, const Tokens& tokens) {
  std::vector<std::int32_t> ends;
  const auto add = [&](std::optional<std::int32_t> id) {
    if (id && std::find(ends.begin(), ends.end(), *id) == ends.end()) ends.push_back(*id);
  };
  add(read_id(file, kEos, tokens));
  add(read_id(file, kEot, tokens));
  for (std::size_t id = 0; id < tokens.names.size(); ++id) {
    const bool ends_text =
        tokens.types[id] == TokenType::control &&
        std::find(kEndNames.begin(), kEndNames.end(), tokens.names[id]) != kEndNames.end();
    if (ends_text) add(static_cast<std::int32_t>(id));
  }
  return ends;
}

GgufVocabulary read_bpe(const GgufFile& file, const Tokens& tokens) {
  GgufVocabulary vocabulary;
  std::string pre = kMissingPre;
  if (file.has(kPre)) {
    pre = file.text(kPre);
  } else {
    vocabulary.warnings.push_back(
        fmt::format("the file names no pre-tokenizer ({}); it is read as {}", kPre, kMissingPre));
  }
  const auto patterns = gguf_split_patterns(pre);
  if (!patterns) {
    vocabulary.fault =
        fmt::format("its pre-tokenizer {} is unknown to this program", printable(pre));
    return vocabulary;
  }

  BpeData data;
  for (std::size_t i = 0; i < tokens.names.size(); ++i) {
    const std::int64_t type = tokens.types[i];
    const auto id = static_cast<std::int32_t>(i);
    data.tokens.emplace_back(type == TokenType::unused ? std::string_view() : tokens.names[i]);
    if (type == TokenType::control) data.special.push_back(id);
    if (type == TokenType::user_defined) data.added.push_back(id);
  }
  for (const std::string_view merge : file.texts(kMerges)) data.merges.emplace_back(merge);
  data.split_patterns = *patterns;
  data.ignore_merges = gguf_ignores_merges(pre);
  data.add_prefix_space = file.has(kAddSpace) && file.boolean(kAddSpace);
  if (!file.has(kAddBos) || file.boolean(kAddBos)) data.bos = read_id(file, kBos, tokens);
  data.eos = read_id(file, kEos, tokens);
  data.end_tokens = read_end_tokens(file, tokens);
  vocabulary.tokenizer = make_bpe_tokenizer(std::move(data), file.name());
  return vocabulary;
}

// Tokens, their types and padding to vocab_size.
void add_tokens(std::vector<std::string> names, std::vector<std::int32_t> types,
                std::int64_t vocab_size, GgufMetadata& metadata) {
  for (auto id = static_cast<std::int64_t>(names.size()); id < vocab_size; ++id) {
    names.push_back(fmt::format("[PAD{}]", id));
    types.push_back(TokenType::unused);
  }
  metadata.add_texts(kTokens, names);
  metadata.add_i32s(kTypes, types);
}

void add_bytes(std::int64_t vocab_size, GgufByteTokens kind, GgufMetadata& metadata) {
  if (kind == GgufByteTokens::rwkv && vocab_size > kByteValues)
    throw UsageError(
        fmt::format("the model has {} token ids, and an rwkv vocabulary would match the names of "
                    "those beyond the {} bytes in texts; choose --gguf-tokenizer gpt2",
                    vocab_size, kByteValues));
  const bool rwkv = kind == GgufByteTokens::rwkv;
  metadata.add_text(kModel, rwkv ? "rwkv" : "gpt2");
  // Of the names that readers know, one that adds no token and leaves spaces as they are when text is
  // printed.
  if (!rwkv) metadata.add_text(kPre, "qwen2");
  add_tokens(byte_names(kind), std::vector<std::int32_t>(kByteValues, TokenType::normal),
             vocab_size, metadata);
  if (!rwkv) {
    metadata.add_texts(kMerges, {});
    metadata.add_bool(kAddBos, false);
    metadata.add_bool(kAddEos, false);
    metadata.add_u32(kBos, 0);  // readers would assume 11
  }
  metadata.add_u32(kEos, 0);  // byte 0 ends a document
}

// The pre-tokenizer that splits as the tokenizer does.
std::string find_pre(const BpeData& data) {
  static constexpr std::array<const char*, 9> kNames = {
      "llama-bpe", "gpt-2", "qwen2", "falcon", "starcoder", "gpt-4o", "tekken", "dbrx", "default"};
  for (const char* name : kNames) {
    if (data.spelled_split_patterns.empty() && gguf_split_patterns(name) == data.split_patterns &&
        gguf_ignores_merges(name) == data.ignore_merges)
      return name;
  }
  throw UsageError(
      "the model's tokenizer splits text in a way for which GGUF has no name; readers would encode "
      "differently");
}

void add_bpe(const BpeData& data, std::int64_t vocab_size, GgufMetadata& metadata) {
  if (!data.strip_left.empty() || !data.strip_right.empty())
    throw UsageError(
        "the model's tokenizer has tokens that take the white space around them, which GGUF cannot "
        "say");
  metadata.add_text(kModel, "gpt2");
  metadata.add_text(kPre, find_pre(data));
  std::vector<std::string> names = data.tokens;
  std::vector<std::int32_t> types(names.size(), TokenType::normal);
  for (const std::int32_t id : data.special)
    types[static_cast<std::size_t>(id)] = TokenType::control;
  for (const std::int32_t id : data.added)
    types[static_cast<std::size_t>(id)] = TokenType::user_defined;
  for (std::size_t id = 0; id < names.size(); ++id) {
    if (!names[id].empty()) continue;
    names[id] = fmt::format("[PAD{}]", id);
    types[id] = TokenType::unused;
  }
  add_tokens(std::move(names), std::move(types), vocab_size, metadata);
  metadata.add_texts(kMerges, data.merges);
  metadata.add_bool(kAddBos, data.bos.has_value());
  metadata.add_bool(kAddEos, false);
  if (data.add_prefix_space) metadata.add_bool(kAddSpace, true);
  if (data.bos) metadata.add_u32(kBos, *data.bos);
  if (data.eos) metadata.add_u32(kEos, *data.eos);
  for (const std::int32_t id : data.end_tokens) {
    if (id == data.eos) continue;
    metadata.add_u32(kEot, id);
    break;  // readers know one
  }
}

}  // namespace

GgufVocabulary read_gguf_vocabulary(const GgufFile& file, std::int64_t vocab_size) {
  GgufVocabulary vocabulary;
  const std::string model = file.has(kModel) ? file.text(kModel) : "none";
  if (model == "none" || model == "no_vocab") {
    vocabulary.fault = "the file has no vocabulary";
    return vocabulary;
  }
  if (model == "llama") {
    vocabulary.fault =
        "its vocabulary is SentencePiece's, which is read from a tokenizer.model beside a model in "
        "Hugging Face's form, not from GGUF";
    return vocabulary;
  }
  if (model == "rwkv" || model == "gpt2") {
    const bool rwkv = model == "rwkv";
    const Tokens tokens = read_tokens(file, vocab_size);
    const bool merges = !rwkv && !file.texts(kMerges).empty();
    if (!merges && are_bytes(tokens, rwkv ? GgufByteTokens::rwkv : GgufByteTokens::gpt2)) {
      vocabulary.tokenizer = byte_tokenizer();
      return vocabulary;
    }
    if (!rwkv) return read_bpe(file, tokens);
  }
  vocabulary.fault = fmt::format(
      "its vocabulary is of the kind {}; this program computes gpt2 (byte-level BPE), and rwkv "
      "where the tokens are the 256 bytes",
      printable(model));
  return vocabulary;
}

void add_gguf_vocabulary(const Tokenizer& tokenizer, std::int64_t vocab_size,
                         GgufByteTokens byte_tokens, GgufMetadata& metadata) {
  if (tokenizer.vocab_size() > vocab_size)
    throw UsageError(
        fmt::format("the tokenizer ({}) has {} tokens, and the model only {} token ids",
                    tokenizer.description(), tokenizer.vocab_size(), vocab_size));
  if (const BpeData* data = tokenizer.bpe_data()) {
    add_bpe(*data, vocab_size, metadata);
  } else if (&tokenizer == byte_tokenizer().get() || tokenizer.description() == "bytes") {
    add_bytes(vocab_size, byte_tokens, metadata);
  } else {
    throw UsageError(
        fmt::format("a GGUF file can hold a vocabulary of bytes or of a byte-level BPE, "
                    "not {}",
                    tokenizer.description()));
  }
}

}  // namespace bitnet
