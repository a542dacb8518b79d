// SPDX-License-Identifier: MIT
// Texts as token ids, written once by `bitnet tokenize -o` and read many times by training: a
// safetensors file with one tensor `tokens`, U16 or, where the vocabulary has more than 65,536
// tokens, I32. Each document is preceded by its tokenizer's document_start(). The metadata says
// which tokenizer made it and from how many bytes of text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/base/safetensors.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet {

// A shard mapped into memory: opening costs nothing, and tokens are read where they are used.
class TokenShard {
 public:
  // Does a file begin as a safetensors file, rather than as a text?
  static bool is_shard(const std::filesystem::path& path);

  // Throws Error for a file that cannot be read, FormatError for one that is no shard.
  explicit TokenShard(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  std::int64_t tokens() const { return tokens_; }          // how many; at least 1
  std::int64_t vocab_size() const { return vocab_size_; }  // ids are in [0, vocab_size)
  std::int64_t text_bytes() const { return text_bytes_; }  // of the text that became these tokens
  const std::string& tokenizer() const { return tokenizer_; }      // its description()
  const std::string& fingerprint() const { return fingerprint_; }  // its fingerprint()

  // 0 <= index < tokens(). Throws FormatError for an id that is not in the vocabulary.
  std::int32_t at(std::int64_t index) const;
  // Tokens [first, first + out.size()), the same way.
  void copy(std::int64_t first, std::span<std::int32_t> out) const;

  // Throws Error unless `tokenizer` made this shard, or one of the same tokens and start of documents.
  void check_made_by(const Tokenizer& tokenizer) const;

 private:
  SafetensorsFile file_;
  std::span<const std::uint8_t> bytes_;
  bool wide_ = false;  // I32
  std::int64_t tokens_ = 0, vocab_size_ = 0, text_bytes_ = 0;
  std::string tokenizer_, fingerprint_, document_start_;
};

// Writes a shard of any length in bounded memory: tokens go to `<path>.tokens-<process>` first, since the
// header, which comes first in the file, says how many there are. Destroyed before commit(), it
// leaves nothing behind; what killed processes left of the same shard is removed.
class TokenShardWriter {
 public:
  // Borrows the tokenizer, which must outlive it.
  TokenShardWriter(const std::filesystem::path& path, const Tokenizer& tokenizer);
  ~TokenShardWriter();

  // The documents of a text (encode_documents.h). `progress` gets the bytes done. Throws Error for a
  // full disk.
  void append_text(std::string_view text, const std::function<void(std::size_t)>& progress = {});

  std::int64_t tokens() const { return tokens_; }
  std::int64_t documents() const { return documents_; }
  std::int64_t text_bytes() const { return text_bytes_; }  // in documents

  // Throws Error when there are no tokens.
  void commit();

 private:
  void append(std::span<const std::int32_t> ids);

  std::filesystem::path path_, staging_;
  std::unique_ptr<OutputFile> file_;
  const Tokenizer& tokenizer_;
  std::int64_t vocab_size_ = 0, tokens_ = 0, documents_ = 0, text_bytes_ = 0;
  bool wide_ = false;
};

}  // namespace bitnet
