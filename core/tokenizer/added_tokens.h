// SPDX-License-Identifier: MIT
// Finds tokens that are not made by merging ("<|eot_id|>") in a text, before it is cut into words:
// the leftmost first, the longest of those that begin at one place.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

class AddedTokens {
 public:
  struct Token {
    std::string text;  // not empty
    std::int32_t id = 0;
    bool strip_left = false, strip_right = false;  // the white space there goes with it
  };
  // A stretch of text, or (id >= 0) a token.
  struct Piece {
    std::string_view text;
    std::int32_t id = -1;
  };

  AddedTokens() = default;
  explicit AddedTokens(std::vector<Token> tokens);

  bool empty() const { return tokens_.empty(); }
  bool any_strips() const { return any_strips_; }

  // Appends the pieces of `text` in order; stretches of text are not empty. Unless the text is
  // `complete`, it stops where it ends in what may be the beginning of a token. Returns where.
  std::size_t split(std::string_view text, bool complete, std::vector<Piece>& pieces) const;

 private:
  const Token* find_at(std::string_view text) const;
  bool may_begin_token(std::string_view text) const;

  std::vector<Token> tokens_;                                  // longest first
  std::array<std::vector<std::size_t>, 256> by_first_byte_{};  // indices, in that order
  bool any_strips_ = false;
  std::size_t longest_ = 0;
};

}  // namespace bitnet
