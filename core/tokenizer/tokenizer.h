// SPDX-License-Identifier: MIT
// Text to token ids and back. A model without a tokenizer of its own reads bytes: id = byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

struct BpeData;
struct SentencePieceData;

// Immutable: any number of threads may use one.
class Tokenizer {
 public:
  // What encode() does with the text of a special token ("<|eot_id|>") in its input.
  enum class SpecialTokens : std::uint8_t { as_text, as_tokens };

  virtual ~Tokenizer() = default;

  virtual std::string description() const = 0;  // "bytes", "byte-level BPE, 128256 tokens"
  // Changes with anything that changes what encode() returns; 16 hexadecimal digits.
  virtual std::string fingerprint() const = 0;
  // Ids are 0 .. vocab_size - 1. A model's own vocabulary may be larger (padded): such ids stand
  // for nothing.
  virtual std::int64_t vocab_size() const = 0;

  // Any bytes: what is not valid UTF-8 is encoded too, and decode(encode(text)) == text wherever
  // the tokenizer itself is lossless (bytes, byte-level BPE). Adds no token of its own.
  virtual std::vector<std::int32_t> encode(
      std::string_view text, SpecialTokens special = SpecialTokens::as_text) const = 0;

  // For texts that come in parts: appends the tokens of the longest beginning of `text` (special
  // tokens as text) of which it is certain that they stay the same whatever follows, and returns
  // its length in bytes. encode() of the rest, with what follows, gives the tokens that follow. 0
  // where nothing is certain before the text is complete.
  virtual std::size_t encode_prefix(std::string_view text, std::vector<std::int32_t>& ids) const;

  // The bytes that a token stands for; perhaps a part of a UTF-8 sequence. Empty for special
  // tokens (end of text, …). Throws ContractError for an id out of range.
  virtual std::string token_bytes(std::int32_t id) const = 0;
  // What a token is called, special ones too: "<|eot_id|>".
  virtual std::string token_name(std::int32_t id) const = 0;
  // The id of a token by its name, a special one too.
  virtual std::optional<std::int32_t> find_token(std::string_view name) const = 0;

  // Precedes every text that a model sees (beginning of text, or the end of the document before);
  // nothing where the tokenizer has no such token.
  virtual std::optional<std::int32_t> document_start() const = 0;
  // Ids that end a text: end of text, end of turn.
  virtual std::span<const std::int32_t> end_tokens() const = 0;

  // Writes the files by which load_tokenizer() finds it again, in Hugging Face's form
  // (tokenizer.json and tokenizer_config.json, or tokenizer.model); those that were read, as they
  // were read. Byte models get the tokenizer.json that has 256 single-byte tokens and no merges.
  // End tokens beyond the first are found in the model's generation_config.json, which whoever
  // writes the model writes. A `model_max_length` above 0 is noted in a tokenizer_config.json that
  // was not read.
  virtual void save(const std::filesystem::path& folder,
                    std::int64_t model_max_length = 0) const = 0;

  // The bytes of the tokens, one after the other. (SentencePiece drops the space that it put before
  // the first word.)
  virtual std::string decode(std::span<const std::int32_t> ids) const;

  // What a byte-level BPE was made from, for writers of other formats; null for every other kind.
  virtual const BpeData* bpe_data() const { return nullptr; }
  // The same of a SentencePiece model, tokens added later among its pieces as control ones.
  virtual std::unique_ptr<SentencePieceData> sentencepiece_data() const;
};

// id = byte; byte 0 ends a document.
std::shared_ptr<const Tokenizer> byte_tokenizer();

// The tokenizer of a model folder: tokenizer.json, else tokenizer.model (needs a build with
// SentencePiece); a byte-level tokenizer.json of 256 bytes in order gives byte_tokenizer(). Where
// tokenizer.json does not say which tokens begin and end a text, tokenizer_config.json,
// generation_config.json and config.json do. Null where the folder has no tokenizer. Throws
// FormatError for files that are damaged or of a kind that we do not compute (naming what it is),
// never encodes differently from what the file says.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder);

// What tokenizer.json and the metadata of a GGUF file both say about a byte-level BPE.
struct BpeData {
  // By id, in GPT-2's byte alphabet; special and added ones as they read. "": no token has this id.
  std::vector<std::string> tokens;
  std::vector<std::string> merges;    // "a b", best first
  std::vector<std::int32_t> special;  // ids of control tokens that encode to nothing but themselves
  // Ids of other tokens that are found in any text before it is cut into words (GGUF:
  // USER_DEFINED).
  std::vector<std::int32_t> added;
  // Of special and added: those that take the white space before, or behind, with them.
  std::vector<std::int32_t> strip_left, strip_right;
  // The regular expressions (split_pattern.h) that cut a text into words, applied one after the
  // other; empty: none. Those of the second list are then applied to the words as they are spelled
  // in the byte alphabet.
  std::vector<std::string> split_patterns, spelled_split_patterns;
  bool ignore_merges = false;  // a word that is a token is taken whole, before any merging
  bool add_prefix_space = false;
  // bos precedes every document; without one eos, the end of the document before, does.
  std::optional<std::int32_t> bos, eos;
  std::vector<std::int32_t> end_tokens;  // eos among them
};
// Throws FormatError (with `path`) for tokens that occur twice, merges of unknown tokens, bytes
// without a token, ids out of range.
std::shared_ptr<const Tokenizer> make_bpe_tokenizer(BpeData data, const std::string& path);

// The split patterns of a GGUF file's `tokenizer.ggml.pre` ("llama-bpe", "gpt-2", "qwen2", …), or
// nothing for a name that we do not know.
std::optional<std::vector<std::string>> gguf_split_patterns(std::string_view pre);
// What such a name implies beside the patterns; neither for names that we do not know.
bool gguf_ignores_merges(std::string_view pre);  // BpeData::ignore_merges
bool gguf_adds_bos(std::string_view pre);        // where tokenizer.ggml.add_bos_token is missing

// A file of SentencePiece (tokenizer.model), and the files beside it that say which tokens end a
// text. Throws Error where this build has no SentencePiece.
std::shared_ptr<const Tokenizer> load_sentencepiece(const std::filesystem::path& file);
// From what another format says (sentencepiece_model.h); `add_bos`: texts begin with data.bos, else
// with data.eos. Null where this build has no SentencePiece. Throws FormatError (with `path`) for
// what makes no model: two pieces that read the same, none or two for what is unknown, …
std::shared_ptr<const Tokenizer> make_sentencepiece_tokenizer(const SentencePieceData& data,
                                                              bool add_bos,
                                                              std::vector<std::int32_t> end_tokens,
                                                              const std::string& path);

}  // namespace bitnet
