// SPDX-License-Identifier: MIT
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/convert/gguf_vocabulary.h"
#include "core/convert/gguf_vocabulary_keys.h"
#include "core/model/model_config.h"
#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/sentencepiece_model.h"

namespace bitnet {

std::vector<std::string> gguf_byte_names(GgufByteTokens kind) {
  std::vector<std::string> names;
  for (int byte = 0; byte < kByteValues; ++byte)
    names.push_back(kind == GgufByteTokens::rwkv ? fmt::format("\\x{:02x}", byte)
                                                 : byte_character(static_cast<std::uint8_t>(byte)));
  return names;
}

namespace {

// Tokens, their types and padding to vocab_size; ids without a token ("") are padding too.
void add_tokens(std::vector<std::string> names, std::vector<PieceType> types,
                std::int64_t vocab_size, GgufMetadata& metadata) {
  names.resize(static_cast<std::size_t>(vocab_size));
  types.resize(names.size(), PieceType::unused);
  std::vector<std::int32_t> numbers;
  for (std::size_t id = 0; id < names.size(); ++id) {
    if (names[id].empty()) {
      names[id] = fmt::format("[PAD{}]", id);
      types[id] = PieceType::unused;
    }
    numbers.push_back(static_cast<std::int32_t>(types[id]));
  }
  metadata.add_texts(kGgufTokens, names);
  metadata.add_i32s(kGgufTypes, numbers);
}

// How documents begin and end.
void add_document_ids(std::optional<std::int32_t> bos, std::optional<std::int32_t> eos,
                      bool add_bos, std::span<const std::int32_t> ends, GgufMetadata& metadata) {
  metadata.add_bool(kGgufAddBos, add_bos);
  metadata.add_bool(kGgufAddEos, false);
  if (bos) metadata.add_u32(kGgufBos, *bos);
  if (eos) metadata.add_u32(kGgufEos, *eos);
  for (const std::int32_t id : ends) {
    if (id == eos) continue;
    metadata.add_u32(kGgufEot, id);
    break;  // readers know one
  }
}

void add_bytes(std::int64_t vocab_size, GgufByteTokens kind, GgufMetadata& metadata) {
  if (kind == GgufByteTokens::rwkv && vocab_size > kByteValues)
    throw UsageError(
        fmt::format("the model has {} token ids, and an rwkv vocabulary would match the names of "
                    "those beyond the {} bytes in texts; choose --gguf-tokenizer gpt2",
                    vocab_size, kByteValues));
  const bool rwkv = kind == GgufByteTokens::rwkv;
  metadata.add_text(kGgufModel, rwkv ? "rwkv" : "gpt2");
  // Of the names that readers know, one that adds no token and leaves spaces as they are when text is
  // printed.
  if (!rwkv) metadata.add_text(kGgufPre, "qwen2");
  add_tokens(gguf_byte_names(kind), std::vector<PieceType>(kByteValues, PieceType::normal),
             vocab_size, metadata);
  if (!rwkv) {
    metadata.add_texts(kGgufMerges, {});
    metadata.add_bool(kGgufAddBos, false);
    metadata.add_bool(kGgufAddEos, false);
    metadata.add_u32(kGgufBos, 0);  // readers would assume 11
  }
  metadata.add_u32(kGgufEos, 0);  // byte 0 ends a document
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
  metadata.add_text(kGgufModel, "gpt2");
  metadata.add_text(kGgufPre, find_pre(data));
  std::vector<PieceType> types(data.tokens.size(), PieceType::normal);
  for (const std::int32_t id : data.special)
    types[static_cast<std::size_t>(id)] = PieceType::control;
  for (const std::int32_t id : data.added)
    types[static_cast<std::size_t>(id)] = PieceType::user_defined;
  add_tokens(data.tokens, std::move(types), vocab_size, metadata);
  metadata.add_texts(kGgufMerges, data.merges);
  if (data.add_prefix_space) metadata.add_bool(kGgufAddSpace, true);
  add_document_ids(data.bos, data.eos, data.bos.has_value(), data.end_tokens, metadata);
}

// What readers of GGUF do not compute as SentencePiece does, or nothing.
std::string_view sentencepiece_fault(const SentencePieceData& data) {
  if (data.algorithm != PieceAlgorithm::bpe) return "chooses pieces by another algorithm than BPE";
  if (data.normalizes) return "replaces characters before it encodes";
  if (data.trims_spaces) return "removes spaces";
  if (data.space_suffix) return "puts spaces behind words";
  if (!data.escapes_spaces) return "does not spell spaces as ▁";
  if (!data.byte_fallback) return "has no tokens for bytes";
  return {};
}

void add_sentencepiece(const SentencePieceData& data, const Tokenizer& tokenizer,
                       std::int64_t vocab_size, GgufMetadata& metadata) {
  if (const std::string_view fault = sentencepiece_fault(data); !fault.empty())
    throw UsageError(
        fmt::format("the model's tokenizer ({}) {}, which readers of GGUF do not do; they would "
                    "encode differently",
                    tokenizer.description(), fault));
  metadata.add_text(kGgufModel, "llama");
  metadata.add_text(kGgufPre, "default");
  std::vector<std::string> names;
  std::vector<PieceType> types;
  std::vector<float> scores;
  for (std::size_t id = 0; id < data.pieces.size(); ++id) {
    const SentencePieceData::Piece& piece = data.pieces[id];
    names.push_back(piece.text);
    types.push_back(piece.type);
    scores.push_back(piece.score);
    if (piece.type == PieceType::unknown)
      metadata.add_u32(kGgufUnknown, static_cast<std::int64_t>(id));
  }
  scores.resize(static_cast<std::size_t>(vocab_size));
  add_tokens(std::move(names), std::move(types), vocab_size, metadata);
  metadata.add_f32s(kGgufScores, scores);
  metadata.add_bool(kGgufAddSpace, data.adds_space);
  const bool add_bos = data.bos && tokenizer.document_start() == data.bos;
  add_document_ids(data.bos, data.eos, add_bos, tokenizer.end_tokens(), metadata);
}

}  // namespace

void add_gguf_vocabulary(const Tokenizer& tokenizer, std::int64_t vocab_size,
                         GgufByteTokens byte_tokens, GgufMetadata& metadata) {
  if (tokenizer.vocab_size() > vocab_size)
    throw UsageError(
        fmt::format("the tokenizer ({}) has {} tokens, and the model only {} token ids",
                    tokenizer.description(), tokenizer.vocab_size(), vocab_size));
  if (const BpeData* data = tokenizer.bpe_data()) {
    add_bpe(*data, vocab_size, metadata);
  } else if (const auto pieces = tokenizer.sentencepiece_data()) {
    add_sentencepiece(*pieces, tokenizer, vocab_size, metadata);
  } else if (&tokenizer == byte_tokenizer().get() || tokenizer.description() == "bytes") {
    add_bytes(vocab_size, byte_tokens, metadata);
  } else {
    throw UsageError(
        fmt::format("a GGUF file can hold a vocabulary of bytes, of a byte-level BPE or of "
                    "SentencePiece, not {}",
                    tokenizer.description()));
  }
}

}  // namespace bitnet
