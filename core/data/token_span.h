// SPDX-License-Identifier: MIT
// A sequence of token ids where it lies: bytes of a file (id = byte), ids of an encoded text, or a
// part of a token shard. Borrows them.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

namespace bitnet {

class TokenShard;

class TokenSpan {
 public:
  TokenSpan() = default;
  template <typename Range>
  requires std::convertible_to<const Range&, std::span<const std::uint8_t>> TokenSpan(
      const Range& bytes)
      : ids_(std::span<const std::uint8_t>(bytes)) {}
  template <typename Range>
  requires std::convertible_to<const Range&, std::span<const std::int32_t>> TokenSpan(
      const Range& ids)
      : ids_(std::span<const std::int32_t>(ids)) {}
  // All of a shard, whose ids are checked when they are read.
  TokenSpan(const TokenShard& shard);

  std::size_t size() const;
  bool empty() const { return size() == 0; }
  std::int32_t operator[](std::size_t index) const;

  // first + count <= size()
  TokenSpan subspan(std::size_t first, std::size_t count) const;
  TokenSpan subspan(std::size_t first) const { return subspan(first, size() - first); }
  TokenSpan first(std::size_t count) const { return subspan(0, count); }

  // Ids [first, first + to.size()).
  void copy(std::size_t first, std::span<std::int32_t> to) const;

 private:
  struct ShardPart {
    const TokenShard* shard;
    std::size_t first, count;
    std::size_t size() const { return count; }
  };
  std::variant<std::span<const std::uint8_t>, std::span<const std::int32_t>, ShardPart> ids_;
};

}  // namespace bitnet
