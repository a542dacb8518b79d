// SPDX-License-Identifier: MIT
// A tokenizer of 512 tokens that a reader can follow: 256 bytes, 254 pairs of lower-case letters,
// <start> and <end>. Text is cut greedily from the left.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet::test {

class PairTokenizer final : public Tokenizer {
 public:
  static constexpr std::int32_t kFirstPair = 256, kStart = 510, kEnd = 511;

  // Without a <start>, nothing begins a document.
  explicit PairTokenizer(bool has_start = true) : has_start_(has_start) {
    for (char a = 'a'; pairs_.size() < kStart - kFirstPair; ++a)
      for (char b = 'a'; b <= 'z' && pairs_.size() < kStart - kFirstPair; ++b)
        pairs_.push_back({a, b});
  }

  std::string description() const override { return "pairs"; }
  std::string fingerprint() const override { return "00000000000pairs"; }
  std::int64_t vocab_size() const override { return 512; }
  std::vector<std::int32_t> encode(std::string_view text, SpecialTokens) const override {
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const std::int32_t pair = i + 1 < text.size() ? find_pair(text.substr(i, 2)) : -1;
      ids.push_back(pair >= 0 ? pair : static_cast<std::uint8_t>(text[i]));
      if (pair >= 0) ++i;
    }
    return ids;
  }
  std::string token_bytes(std::int32_t id) const override {
    BITNET_CHECK(id >= 0 && id < 512, "token {}", id);
    if (id < kFirstPair) return std::string(1, static_cast<char>(static_cast<std::uint8_t>(id)));
    return id < kStart ? pairs_[static_cast<std::size_t>(id - kFirstPair)] : std::string();
  }
  std::string token_name(std::int32_t id) const override {
    return id == kStart ? "<start>" : id == kEnd ? "<end>" : token_bytes(id);
  }
  std::optional<std::int32_t> find_token(std::string_view name) const override {
    for (std::int32_t id = 0; id < 512; ++id)
      if (token_name(id) == name) return id;
    return std::nullopt;
  }
  std::optional<std::int32_t> document_start() const override {
    return has_start_ ? std::optional(kStart) : std::nullopt;
  }
  std::span<const std::int32_t> end_tokens() const override { return ends_; }
  void save(const std::filesystem::path& folder, std::int64_t) const override {
    write_file(folder / "pairs.txt", "pairs\n");
  }

 private:
  std::int32_t find_pair(std::string_view text) const {
    for (std::size_t i = 0; i < pairs_.size(); ++i)
      if (pairs_[i] == text) return kFirstPair + static_cast<std::int32_t>(i);
    return -1;
  }

  bool has_start_;
  std::vector<std::string> pairs_;
  std::array<std::int32_t, 1> ends_{kEnd};
};

inline std::shared_ptr<const Tokenizer> pair_tokenizer(bool has_start = true) {
  return std::make_shared<PairTokenizer>(has_start);
}

}  // namespace bitnet::test
