// SPDX-License-Identifier: MIT
#include "core/data/token_shard.h"

#include <unistd.h>

#include <charconv>
#include <cstring>
#include <vector>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/base/leftovers.h"
#include "core/data/encode_documents.h"

namespace bitnet {
namespace {

constexpr const char* kTensor = "tokens";
constexpr std::int64_t kMaxNarrowVocabulary = 65536;
constexpr std::string_view kStaging = ".tokens-";

// Keys of the metadata.
constexpr const char* kKind = "bitnet.kind";
constexpr const char* kShardKind = "token shard";
constexpr const char* kTokenizer = "bitnet.tokenizer";
constexpr const char* kFingerprint = "bitnet.tokenizer_fingerprint";
constexpr const char* kDocumentStart = "bitnet.document_start";  // a token id, or "none"
constexpr const char* kVocabSize = "bitnet.vocab_size";
constexpr const char* kTextBytes = "bitnet.text_bytes";

[[noreturn]] void refuse(const SafetensorsFile& file, std::uint64_t offset,
                         const std::string& reason) {
  throw FormatError(file.path().string(), offset, reason);
}

const std::string& text_of(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end())
    refuse(file, 0, fmt::format("this is no token shard: its metadata has no {}", key));
  return found->second;
}

std::int64_t number_of(const SafetensorsFile& file, const char* key, std::int64_t min,
                       std::int64_t max) {
  const std::string& text = text_of(file, key);
  std::int64_t number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number < min || number > max)
    refuse(
        file, 0,
        fmt::format("{} is {}, expected a number from {} to {}", key, printable(text), min, max));
  return number;
}

std::string start_text(const Tokenizer& tokenizer) {
  const auto start = tokenizer.document_start();
  return start ? std::to_string(*start) : "none";
}

}  // namespace

bool TokenShard::is_shard(const std::filesystem::path& path) {
  const MappedFile file(path);
  // u64 length of the header, then the header, a JSON object that is no longer than the file.
  if (file.bytes().size() < 10 || file.bytes()[8] != '{') return false;
  std::uint64_t length = 0;
  std::memcpy(&length, file.bytes().data(), sizeof length);
  return length <= file.bytes().size() - sizeof length;
}

TokenShard::TokenShard(const std::filesystem::path& path) : file_(path) {
  if (!file_.metadata().contains(kKind))
    refuse(file_, 0,
           fmt::format("this is a safetensors file of {} tensors, but no token shard of bitnet "
                       "tokenize (its metadata has no {}); data is text or such a shard, and a "
                       "safetensors file is never read as text",
                       file_.entries().size(), kKind));
  if (text_of(file_, kKind) != kShardKind)
    refuse(
        file_, 0,
        fmt::format("this is no token shard: {} is {}", kKind, printable(text_of(file_, kKind))));
  tokenizer_ = text_of(file_, kTokenizer);
  fingerprint_ = text_of(file_, kFingerprint);
  document_start_ = text_of(file_, kDocumentStart);
  vocab_size_ = number_of(file_, kVocabSize, 1, INT32_MAX);
  text_bytes_ = number_of(file_, kTextBytes, 0, INT64_MAX);
  const SafetensorsFile::Entry* entry = file_.find(kTensor);
  if (entry == nullptr || file_.entries().size() != 1)
    refuse(file_, 0, fmt::format("expected one tensor, '{}'", kTensor));
  wide_ = vocab_size_ > kMaxNarrowVocabulary;
  const char* dtype = wide_ ? "I32" : "U16";
  if (entry->dtype != dtype || entry->shape.size() != 1)
    refuse(file_, 0,
           fmt::format("tokens of a vocabulary of {} are {} {}, expected {} and one "
                       "dimension",
                       vocab_size_, entry->dtype, shape_text(entry->shape), dtype));
  if (entry->elements() == 0) refuse(file_, 0, "it holds no tokens");
  tokens_ = entry->elements();
  bytes_ = entry->bytes;
}

std::int32_t TokenShard::at(std::int64_t index) const {
  std::int32_t id = 0;
  copy(index, std::span(&id, 1));
  return id;
}

void TokenShard::copy(std::int64_t first, std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  BITNET_CHECK(first >= 0 && count <= tokens_ && first <= tokens_ - count, "tokens [{}, {}) of {}",
               first, first + count, tokens_);
  const auto start = static_cast<std::size_t>(first);
  if (wide_) {
    std::memcpy(out.data(), bytes_.data() + 4 * start, out.size_bytes());
  } else {
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = bytes_[2 * (start + i)] | bytes_[2 * (start + i) + 1] << 8;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i] >= 0 && out[i] < vocab_size_) continue;
    const std::size_t width = wide_ ? 4 : 2;
    refuse(file_, file_.find(kTensor)->offset + width * (start + i),
           fmt::format("token {} is {}, expected an id below {}", start + i, out[i], vocab_size_));
  }
}

void TokenShard::check_made_by(const Tokenizer& tokenizer) const {
  const std::string start = start_text(tokenizer);
  if (fingerprint_ == tokenizer.fingerprint() && vocab_size_ == tokenizer.vocab_size()) {
    if (document_start_ == start) return;
    throw Error(fmt::format(
        "{}: its documents begin with token {}, but those of the model's tokenizer with token {}; "
        "make it again with bitnet tokenize",
        path().string(), printable(document_start_), start));
  }
  throw Error(
      fmt::format("{}: these tokens were made by another tokenizer ({}, fingerprint {}) than "
                  "the model's ({}, fingerprint {}); make them again with bitnet tokenize",
                  path().string(), printable(tokenizer_), printable(fingerprint_),
                  tokenizer.description(), tokenizer.fingerprint()));
}

TokenShardWriter::TokenShardWriter(const std::filesystem::path& path, const Tokenizer& tokenizer)
    : path_(path),
      staging_(path),
      tokenizer_(tokenizer),
      vocab_size_(tokenizer.vocab_size()),
      wide_(vocab_size_ > kMaxNarrowVocabulary) {
  remove_leftovers(path_, kStaging);
  staging_ += fmt::format("{}{}", kStaging, ::getpid());
  file_ = std::make_unique<OutputFile>(staging_);
}

TokenShardWriter::~TokenShardWriter() {
  file_.reset();
  std::error_code ignored;
  std::filesystem::remove(staging_, ignored);
}

void TokenShardWriter::append(std::span<const std::int32_t> ids) {
  for (const std::int32_t id : ids)
    BITNET_CHECK(id >= 0 && id < vocab_size_, "token {} of {}", id, vocab_size_);
  if (wide_) {
    file_->write(std::span(reinterpret_cast<const std::uint8_t*>(ids.data()), ids.size_bytes()));
  } else {
    std::vector<std::uint16_t> narrow;
    narrow.reserve(ids.size());
    for (const std::int32_t id : ids) narrow.push_back(static_cast<std::uint16_t>(id));
    file_->write(
        std::span(reinterpret_cast<const std::uint8_t*>(narrow.data()), 2 * narrow.size()));
  }
  tokens_ += static_cast<std::int64_t>(ids.size());
}

void TokenShardWriter::append_text(std::string_view text,
                                   const std::function<void(std::size_t)>& progress) {
  const DocumentCounts counts = encode_documents(
      text, tokenizer_, [this](std::span<const std::int32_t> ids) { append(ids); }, progress);
  documents_ += counts.documents;
  text_bytes_ += counts.text_bytes;
}

void TokenShardWriter::commit() {
  if (tokens_ == 0) throw Error(fmt::format("{}: there are no tokens to write", path_.string()));
  file_->commit();
  const MappedFile staged(staging_);
  const TensorToWrite tensor{
      kTensor, wide_ ? "I32" : "U16", {tokens_}, staged.bytes().data(), nullptr};
  write_safetensors(path_, std::span(&tensor, 1),
                    {{kKind, kShardKind},
                     {kTokenizer, tokenizer_.description()},
                     {kFingerprint, tokenizer_.fingerprint()},
                     {kDocumentStart, start_text(tokenizer_)},
                     {kVocabSize, std::to_string(vocab_size_)},
                     {kTextBytes, std::to_string(text_bytes_)}});
}

}  // namespace bitnet
