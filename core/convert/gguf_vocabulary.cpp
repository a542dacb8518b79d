// SPDX-License-Identifier: MIT
#include "core/convert/gguf_vocabulary.h"

#include <algorithm>
#include <array>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/convert/gguf_vocabulary_keys.h"
#include "core/model/model_config.h"
#include "core/tokenizer/sentencepiece_model.h"

namespace bitnet {
namespace {

constexpr const char* kMissingPre = "llama-bpe";  // what files without the key were made with

// What readers take in a SentencePiece vocabulary where the keys are missing.
constexpr std::int32_t kDefaultUnknown = 0, kDefaultBos = 1, kDefaultEos = 2;

// Control tokens by which llama.cpp's readers end a text too, whatever the keys say.
constexpr std::array<std::string_view, 5> kEndNames = {"<|eot_id|>", "<|im_end|>", "<|end|>",
                                                       "<|end_of_text|>", "<|endoftext|>"};

struct Tokens {
  std::vector<std::string_view> names;
  std::vector<PieceType> types;  // as many
};

Tokens read_tokens(const GgufFile& file, std::int64_t vocab_size) {
  Tokens tokens{file.texts(kGgufTokens), {}};
  const std::size_t count = tokens.names.size();
  if (count > static_cast<std::size_t>(vocab_size))
    file.refuse(kGgufTokens,
                fmt::format("has {} tokens, but the embedding only {} rows", count, vocab_size));
  tokens.types.assign(count, PieceType::normal);
  if (!file.has(kGgufTypes)) return tokens;
  const std::vector<std::int64_t> types = file.integers(kGgufTypes);
  if (types.size() != count)
    file.refuse(kGgufTypes,
                fmt::format("has {} values, expected {}: one a token", types.size(), count));
  for (std::size_t id = 0; id < count; ++id) {
    if (types[id] < 0 || types[id] > 6)
      file.refuse(kGgufTypes, fmt::format("has {} for token {}, expected 0 to 6", types[id], id));
    if (types[id] != 0) tokens.types[id] = static_cast<PieceType>(types[id]);  // 0: undefined
  }
  return tokens;
}

// Are the tokens the 256 bytes in order, and nothing else but padding?
bool are_bytes(const Tokens& tokens, GgufByteTokens kind) {
  const std::vector<std::string> names = gguf_byte_names(kind);
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
  add(read_id(file, kGgufEot, tokens));
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
  if (file.has(kGgufPre)) {
    pre = file.text(kGgufPre);
  } else {
    vocabulary.warnings.push_back(fmt::format(
        "the file names no pre-tokenizer ({}); it is read as {}", kGgufPre, kMissingPre));
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
  for (const std::string_view merge : file.texts(kGgufMerges)) data.merges.emplace_back(merge);
  data.split_patterns = *patterns;
  data.ignore_merges = gguf_ignores_merges(pre);
  data.add_prefix_space = file.has(kGgufAddSpace) && file.boolean(kGgufAddSpace);
  if (file.has(kGgufAddBos) ? file.boolean(kGgufAddBos) : gguf_adds_bos(pre))
    data.bos = read_id(file, kGgufBos, tokens);
  data.eos = read_id(file, kGgufEos, tokens);
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
  if (file.has(kGgufScores)) scores = file.numbers(kGgufScores);
  if (scores.size() != count)
    file.refuse(kGgufScores,
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
  data.bos = read_control(file, kGgufBos, kDefaultBos, tokens, data);
  data.eos = read_control(file, kGgufEos, kDefaultEos, tokens, data);
  const bool unknown = std::ranges::any_of(
      data.pieces, [](const auto& piece) { return piece.type == PieceType::unknown; });
  if (!unknown && count > 0) {
    const auto id = read_id(file, kGgufUnknown, tokens).value_or(kDefaultUnknown);
    data.pieces[static_cast<std::size_t>(id)].type = PieceType::unknown;
  }
  if (file.has(kGgufAddSpace)) data.adds_space = file.boolean(kGgufAddSpace);
  if (user_defined && data.adds_space)
    vocabulary.warnings.push_back(
        "the vocabulary has user-defined tokens: llama.cpp puts a space before the text behind "
        "one, "
        "SentencePiece does not; this program does as SentencePiece");
  if (file.has(kGgufRemoveSpaces) && file.boolean(kGgufRemoveSpaces))
    vocabulary.warnings.push_back(
        fmt::format("{} is set, which llama.cpp's readers do not heed, nor does this program",
                    kGgufRemoveSpaces));
  const bool add_bos = !file.has(kGgufAddBos) || file.boolean(kGgufAddBos);
  vocabulary.tokenizer = make_sentencepiece_tokenizer(
      data, add_bos, read_end_tokens(file, tokens, data.eos), file.name());
  if (!vocabulary.tokenizer)
    vocabulary.fault =
        "its vocabulary is SentencePiece's, and this build has no SentencePiece: install "
        "libsentencepiece-dev, then configure and build again";
  return vocabulary;
}

}  // namespace

GgufVocabulary read_gguf_vocabulary(const GgufFile& file, std::int64_t vocab_size) {
  GgufVocabulary vocabulary;
  const std::string model = file.has(kGgufModel) ? file.text(kGgufModel) : "none";
  if (model == "none" || model == "no_vocab") {
    vocabulary.fault = "the file has no vocabulary";
    return vocabulary;
  }
  if (model == "llama") return read_sentencepiece(file, read_tokens(file, vocab_size));
  if (model == "rwkv" || model == "gpt2") {
    const bool rwkv = model == "rwkv";
    const Tokens tokens = read_tokens(file, vocab_size);
    const bool merges = !rwkv && !file.texts(kGgufMerges).empty();
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

}  // namespace bitnet
