// SPDX-License-Identifier: MIT
#include "core/convert/gguf_vocabulary.h"

#include <algorithm>
#include <array>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/model/model_config.h"
#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/sentencepiece_model.h"

namespace bitnet {
namespace {

constexpr const char* kModel = "tokenizer.ggml.model";
constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr const char* kPre = "tokenizer.ggml.pre";
constexpr const char* kUnknown = "tokenizer.ggml.unknown_token_id";
constexpr const char* kBos = "tokenizer.ggml.bos_token_id";
constexpr const char* kEos = "tokenizer.ggml.eos_token_id";
constexpr const char* kEot = "tokenizer.ggml.eot_token_id";
constexpr const char* kAddBos = "tokenizer.ggml.add_bos_token";
constexpr const char* kAddEos = "tokenizer.ggml.add_eos_token";
constexpr const char* kAddSpace = "tokenizer.ggml.add_space_prefix";
constexpr const char* kRemoveSpaces = "tokenizer.ggml.remove_extra_whitespaces";
constexpr const char* kMissingPre = "llama-bpe";  // what files without the key were made with

// What readers take in a SentencePiece vocabulary where the keys are missing.
constexpr std::int32_t kDefaultUnknown = 0, kDefaultBos = 1, kDefaultEos = 2;

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
  std::vector<PieceType> types;  // as many
};

Tokens read_tokens(const GgufFile& file, std::int64_t vocab_size) {
  Tokens tokens{file.texts(kTokens), {}};
  const std::size_t count = tokens.names.size();
  if (count > static_cast<std::size_t>(vocab_size))
    file.refuse(kTokens,
                fmt::format("has {} tokens, but the embedding only {} rows", count, vocab_size));
  tokens.types.assign(count, PieceType::normal);
  if (!file.has(kTypes)) return tokens;
  const std::vector<std::int64_t> types = file.integers(kTypes);
  if (types.size() != count)
    file.refuse(kTypes,
                fmt::format("has {} values, expected {}: one a token", types.size(), count));
  for (std::size_t id = 0; id < count; ++id) {
    if (types[id] < 0 || types[id] > 6)
      file.refuse(kTypes, fmt::format("has {} for token {}, expected 0 to 6", types[id], id));
    if (types[id] != 0) tokens.types[id] = static_cast<PieceType>(types[id]);  // 0: undefined
  }
  return tokens;
}

// Are the tokens the 256 bytes in order, and nothing else but padding?
bool are_bytes(const Tokens& tokens, GgufByteTokens kind) {
  const std::vector<std::string> names = byte_names(kind);
  if (tokens.names.size() < names.size()) return false;
  return std::equal(names.begin(), names.end(), tokens.names.begin()) &&
         std::all_of(tokens.types.begin() + kByteValues, tokens.types.end(),
                     [](PieceType type) { return type == PieceType::unused; });
}

std::optional<std::int32_t> read_id(const GgufFile& file, const char* key, const Tokens& tokens) {
  if (!file.has(key)) return std::nullopt;
  const auto last = static_cast<std::int64_t>(tokens.names.size()) - 1;
  return static_cast<std::int32_t>(file.integer(key, 0, last));
}

// `eos` first.
std::vector<std::int32_t> read_end_tokens(const GgufFile& file, const Tokens& tokens,
                                          std::optional<std::int32_t> eos) {
  std::vector<std::int32_t> ends;
  const auto add = [&](std::optional<std::int32_t> id) {
    if (id && std::find(ends.begin(), ends.end(), *id) == ends.end()) ends.push_back(*id);
  };
  add(eos);
  add(read_id(file, kEot, tokens));
  for (std::size_t id = 0; id < tokens.names.size(); ++id) {
    const bool ends_text =
        tokens.types[id] == PieceType::control &&
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
    const PieceType type = tokens.types[i];
    const auto id = static_cast<std::int32_t>(i);
    data.tokens.emplace_back(type == PieceType::unused ? std::string_view() : tokens.names[i]);
    if (type == PieceType::control) data.special.push_back(id);
    if (type == PieceType::user_defined) data.added.push_back(id);
  }
  for (const std::string_view merge : file.texts(kMerges)) data.merges.emplace_back(merge);
  data.split_patterns = *patterns;
  data.ignore_merges = gguf_ignores_merges(pre);
  data.add_prefix_space = file.has(kAddSpace) && file.boolean(kAddSpace);
  if (file.has(kAddBos) ? file.boolean(kAddBos) : gguf_adds_bos(pre))
    data.bos = read_id(file, kBos, tokens);
  data.eos = read_id(file, kEos, tokens);
  data.end_tokens = read_end_tokens(file, tokens, data.eos);
  vocabulary.tokenizer = make_bpe_tokenizer(std::move(data), file.name());
  return vocabulary;
}

// A control token by its key, or what readers assume without it; then it is one, whatever its type.
std::optional<std::int32_t> read_control(const GgufFile& file, const char* key,
                                         std::int32_t assumed, const Tokens& tokens,
                                         SentencePieceData& data) {
  auto id = read_id(file, key, tokens);
  if (!id && static_cast<std::size_t>(assumed) < tokens.names.size()) id = assumed;
  if (id) data.pieces[static_cast<std::size_t>(*id)].type = PieceType::control;
  return id;
}

// Merging by scores, as SentencePiece's BPE does it; llama.cpp takes every such vocabulary for one.
GgufVocabulary read_sentencepiece(const GgufFile& file, const Tokens& tokens) {
  const std::size_t count = tokens.names.size();
  std::vector<float> scores(count);
  if (file.has(kScores)) scores = file.numbers(kScores);
  if (scores.size() != count)
    file.refuse(kScores,
                fmt::format("has {} values, expected {}: one a token", scores.size(), count));

  GgufVocabulary vocabulary;
  SentencePieceData data;
  data.algorithm = PieceAlgorithm::bpe;
  data.trims_spaces = false;
  bool user_defined = false;
  for (std::size_t id = 0; id < count; ++id) {
    const PieceType type = tokens.types[id];
    data.pieces.push_back({std::string(tokens.names[id]), scores[id], type});
    data.byte_fallback = data.byte_fallback || type == PieceType::byte;
    user_defined = user_defined || type == PieceType::user_defined;
  }
  data.bos = read_control(file, kBos, kDefaultBos, tokens, data);
  data.eos = read_control(file, kEos, kDefaultEos, tokens, data);
  const bool unknown = std::ranges::any_of(
      data.pieces, [](const auto& piece) { return piece.type == PieceType::unknown; });
  if (!unknown && count > 0) {
    const auto id = read_id(file, kUnknown, tokens).value_or(kDefaultUnknown);
    data.pieces[static_cast<std::size_t>(id)].type = PieceType::unknown;
  }
  if (file.has(kAddSpace)) data.adds_space = file.boolean(kAddSpace);
  if (user_defined && data.adds_space)
    vocabulary.warnings.push_back(
        "the vocabulary has user-defined tokens: llama.cpp puts a space before the text behind "
        "one, "
        "SentencePiece does not; this program does as SentencePiece");
  if (file.has(kRemoveSpaces) && file.boolean(kRemoveSpaces))
    vocabulary.warnings.push_back(fmt::format(
        "{} is set, which llama.cpp's readers do not heed, nor does this program", kRemoveSpaces));
  const bool add_bos = !file.has(kAddBos) || file.boolean(kAddBos);
  vocabulary.tokenizer = make_sentencepiece_tokenizer(
      data, add_bos, read_end_tokens(file, tokens, data.eos), file.name());
  if (!vocabulary.tokenizer)
    vocabulary.fault =
        "its vocabulary is SentencePiece's, and this build has no SentencePiece: install "
        "libsentencepiece-dev, then configure and build again";
  return vocabulary;
}

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
  metadata.add_texts(kTokens, names);
  metadata.add_i32s(kTypes, numbers);
}

// How documents begin and end.
void add_document_ids(std::optional<std::int32_t> bos, std::optional<std::int32_t> eos,
                      bool add_bos, std::span<const std::int32_t> ends, GgufMetadata& metadata) {
  metadata.add_bool(kAddBos, add_bos);
  metadata.add_bool(kAddEos, false);
  if (bos) metadata.add_u32(kBos, *bos);
  if (eos) metadata.add_u32(kEos, *eos);
  for (const std::int32_t id : ends) {
    if (id == eos) continue;
    metadata.add_u32(kEot, id);
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
  metadata.add_text(kModel, rwkv ? "rwkv" : "gpt2");
  // Of the names that readers know, one that adds no token and leaves spaces as they are when text is
  // printed.
  if (!rwkv) metadata.add_text(kPre, "qwen2");
  add_tokens(byte_names(kind), std::vector<PieceType>(kByteValues, PieceType::normal), vocab_size,
             metadata);
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
  std::vector<PieceType> types(data.tokens.size(), PieceType::normal);
  for (const std::int32_t id : data.special)
    types[static_cast<std::size_t>(id)] = PieceType::control;
  for (const std::int32_t id : data.added)
    types[static_cast<std::size_t>(id)] = PieceType::user_defined;
  add_tokens(data.tokens, std::move(types), vocab_size, metadata);
  metadata.add_texts(kMerges, data.merges);
  if (data.add_prefix_space) metadata.add_bool(kAddSpace, true);
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
  metadata.add_text(kModel, "llama");
  metadata.add_text(kPre, "default");
  std::vector<std::string> names;
  std::vector<PieceType> types;
  std::vector<float> scores;
  for (std::size_t id = 0; id < data.pieces.size(); ++id) {
    const SentencePieceData::Piece& piece = data.pieces[id];
    names.push_back(piece.text);
    types.push_back(piece.type);
    scores.push_back(piece.score);
    if (piece.type == PieceType::unknown) metadata.add_u32(kUnknown, static_cast<std::int64_t>(id));
  }
  scores.resize(static_cast<std::size_t>(vocab_size));
  add_tokens(std::move(names), std::move(types), vocab_size, metadata);
  metadata.add_f32s(kScores, scores);
  metadata.add_bool(kAddSpace, data.adds_space);
  const bool add_bos = data.bos && tokenizer.document_start() == data.bos;
  add_document_ids(data.bos, data.eos, add_bos, tokenizer.end_tokens(), metadata);
}

}  // namespace

GgufVocabulary read_gguf_vocabulary(const GgufFile& file, std::int64_t vocab_size) {
  GgufVocabulary vocabulary;
  const std::string model = file.has(kModel) ? file.text(kModel) : "none";
  if (model == "none" || model == "no_vocab") {
    vocabulary.fault = "the file has no vocabulary";
    return vocabulary;
  }
  if (model == "llama") return read_sentencepiece(file, read_tokens(file, vocab_size));
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
      "its vocabulary is of the kind {}; this program computes gpt2 (byte-level BPE), llama "
      "(SentencePiece), and rwkv where the tokens are the 256 bytes",
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
