// SPDX-License-Identifier: MIT
#include "core/data/text_data.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "core/base/machine.h"
#include "core/data/encode_documents.h"
#include "core/data/token_lengths.h"

namespace bitnet {
namespace {

// A text's tokens may be as many as its bytes, and a growing vector is there twice, beside a
// document's own.
constexpr std::int64_t kBytesToEncodeByte = 3 * sizeof(std::int32_t);

void check_encodable(const std::filesystem::path& path, std::size_t bytes) {
  const std::int64_t limit = physical_memory() / 2 / kBytesToEncodeByte;
  if (static_cast<std::int64_t>(bytes) <= limit) return;
  throw Error(
      fmt::format("{}: {} bytes of text are too many to encode in memory (at most {} here); "
                  "encode them once with bitnet tokenize, and take the token shard that it "
                  "writes as data.path",
                  path.string(), bytes, limit));
}

}  // namespace

TextData::TextData(const DataConfig& data, std::shared_ptr<const Tokenizer> tokenizer)
    : path_(data.path),
      tokenizer_(std::move(tokenizer)),
      bytes_are_tokens_(reads_bytes(*tokenizer_)) {
  if (TokenShard::is_shard(path_)) {
    shard_.emplace(path_);
    shard_->check_made_by(*tokenizer_);
  } else {
    text_.emplace(path_);
  }
  ends_ = split_ends(data.split, size(), unit());
}

std::size_t TextData::size() const {
  return shard_ ? static_cast<std::size_t>(shard_->tokens()) : text_->bytes().size();
}

std::size_t TextData::size(DataPart part) const { return range(part).count; }

TextData::Range TextData::range(DataPart part) const {
  if (part == DataPart::all) return {0, size()};
  const auto index = static_cast<std::size_t>(part);
  const std::size_t first = index == 0 ? 0 : ends_[index - 1];
  return {first, ends_[index] - first};
}

TokenSpan TextData::tokens(DataPart part) {
  const auto [first, count] = range(part);
  if (shard_) return TokenSpan(*shard_).subspan(first, count);
  const auto bytes = text_->bytes().subspan(first, count);
  if (bytes_are_tokens_) return bytes;
  auto& encoded = encoded_[static_cast<std::size_t>(part)];
  if (!encoded) {
    check_encodable(path_, bytes.size());
    std::vector<std::int32_t> ids;
    encode_documents(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
                     *tokenizer_, [&](std::span<const std::int32_t> some) {
                       ids.insert(ids.end(), some.begin(), some.end());
                     });
    encoded = std::move(ids);
  }
  return *encoded;
}

std::int64_t TextData::bytes(DataPart part) const {
  const auto [first, count] = range(part);
  if (!shard_) return static_cast<std::int64_t>(count);
  if (count == size()) return shard_->text_bytes();
  return TokenLengths(*tokenizer_).bytes_of(TokenSpan(*shard_).subspan(first, count));
}

double TextData::bytes_per_token() {
  if (bytes_are_tokens_) return 1;
  if (shard_)
    return static_cast<double>(shard_->text_bytes()) / static_cast<double>(shard_->tokens());
  return static_cast<double>(bytes(DataPart::train)) /
         static_cast<double>(std::max<std::size_t>(1, tokens(DataPart::train).size()));
}

}  // namespace bitnet
