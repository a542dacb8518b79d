// SPDX-License-Identifier: MIT
// The data of a run or an evaluation as token ids of a tokenizer: the bytes of a text, a text that is
// encoded into memory, or a token shard.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "core/data/byte_source.h"
#include "core/data/data_config.h"
#include "core/data/token_shard.h"
#include "core/data/token_span.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet {

enum class DataPart : std::uint8_t { train, valid, test, all };

class TextData {
 public:
  // Opens data.path; encodes nothing yet. Throws as ByteSource and TokenShard do, and Error for a
  // shard that another tokenizer made.
  TextData(const DataConfig& data, std::shared_ptr<const Tokenizer> tokenizer);
  TextData(const TextData&) = delete;
  TextData& operator=(const TextData&) = delete;

  // Tokens of a shard, else bytes of a text: what data.split counts. A text is cut before it is
  // encoded, so that its parts are the same for every tokenizer.
  const char* unit() const { return shard_ ? "tokens" : "bytes"; }
  std::size_t size() const;               // in that unit
  std::size_t size(DataPart part) const;  // in that unit
  // Whether tokens() encodes, which takes time and memory.
  bool encodes() const { return !shard_ && !bytes_are_tokens_; }

  // The ids of a part; they live as long as this object. A text is encoded at the first call, its
  // documents as in a shard. Throws Error where that would not fit into the memory.
  TokenSpan tokens(DataPart part);
  // The text that those tokens stand for; for a part of a shard, all its tokens are read.
  std::int64_t bytes(DataPart part) const;
  // Its mean over the training part (over all of a shard); 1 where bytes are tokens.
  double bytes_per_token();

 private:
  struct Range {
    std::size_t first = 0, count = 0;
  };
  Range range(DataPart part) const;

  std::filesystem::path path_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool bytes_are_tokens_ = false;
  std::optional<ByteSource> text_;
  std::optional<TokenShard> shard_;
  std::array<std::size_t, 3> ends_{};                                // of train, valid and test
  std::array<std::optional<std::vector<std::int32_t>>, 4> encoded_;  // by part
};

}  // namespace bitnet
