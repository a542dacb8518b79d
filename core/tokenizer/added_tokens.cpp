// SPDX-License-Identifier: MIT
#include "core/tokenizer/added_tokens.h"

#include <algorithm>

#include "core/tokenizer/utf8.h"

namespace bitnet {
namespace {

// Bytes of white space that `text` begins with.
std::size_t leading_white_space(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0 || !is_white_space(utf8_code_point(text.substr(i), length))) break;
    i += length;
  }
  return i;
}

// `text` without the white space that it ends with.
std::string_view without_trailing_white_space(std::string_view text) {
  while (!text.empty()) {
    std::size_t length = 1;
    while (length < std::min<std::size_t>(3, text.size()) &&
           (static_cast<std::uint8_t>(text[text.size() - length]) & 0xc0) == 0x80)
      ++length;
    const std::string_view last = text.substr(text.size() - length);
    if (utf8_length(last) != length || !is_white_space(utf8_code_point(last, length))) break;
    text.remove_suffix(length);
  }
  return text;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const Token& a, const Token& b) { return a.text.size() > b.text.size(); });
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    by_first_byte_[static_cast<std::uint8_t>(tokens_[i].text.at(0))].push_back(i);
    any_strips_ = any_strips_ || tokens_[i].strip_left || tokens_[i].strip_right;
  }
  if (!tokens_.empty()) longest_ = tokens_.front().text.size();
}

const AddedTokens::Token* AddedTokens::find_at(std::string_view text) const {
  for (const std::size_t i : by_first_byte_[static_cast<std::uint8_t>(text[0])]) {
    if (text.starts_with(tokens_[i].text)) return &tokens_[i];
  }
  return nullptr;
}

// Is `text` all there is, and shorter than a token that begins like it?
bool AddedTokens::may_begin_token(std::string_view text) const {
  if (text.size() >= longest_) return false;
  const auto& candidates = by_first_byte_[static_cast<std::uint8_t>(text[0])];
  return std::any_of(candidates.begin(), candidates.end(), [&](std::size_t i) {
    return tokens_[i].text.size() > text.size() && tokens_[i].text.starts_with(text);
  });
}

std::size_t AddedTokens::split(std::string_view text, bool complete,
                               std::vector<Piece>& pieces) const {
  std::size_t begin = 0;  // of the stretch of text before the next token
  std::size_t end = text.size();
  for (std::size_t i = 0; i < text.size() && !tokens_.empty();) {
    if (!complete && may_begin_token(text.substr(i))) {
      end = i;
      break;
    }
    const Token* token = find_at(text.substr(i));
    if (token == nullptr) {
      ++i;
      continue;
    }
    std::string_view before = text.substr(begin, i - begin);
    if (token->strip_left) before = without_trailing_white_space(before);
    if (!before.empty()) pieces.push_back({before});
    pieces.push_back({text.substr(i, token->text.size()), token->id});
    i += token->text.size();
    if (token->strip_right) i += leading_white_space(text.substr(i));
    begin = i;
  }
  if (begin < end) pieces.push_back({text.substr(begin, end - begin)});
  return end;
}

}  // namespace bitnet
