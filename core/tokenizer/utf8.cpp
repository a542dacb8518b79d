// SPDX-License-Identifier: MIT
#include "core/tokenizer/utf8.h"

#include <algorithm>

namespace bitnet {
namespace {

std::uint8_t byte_at(std::string_view text, std::size_t i) {
  return static_cast<std::uint8_t>(text[i]);
}

// Bytes that a sequence with this first byte has; 0: no sequence begins with it.
std::size_t announced_length(std::uint8_t first) {
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

// Is `byte` possible at `index` >= 1 of a sequence that begins with `first`? The second byte is
// where overlong forms, surrogates and what lies above U+10FFFF show.
bool may_follow(std::uint8_t first, std::size_t index, std::uint8_t byte) {
  std::uint8_t low = 0x80, high = 0xbf;
  if (index == 1) {
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
  }
  return byte >= low && byte <= high;
}

// How many of the bytes at the beginning of `text` are those of one sequence.
std::size_t sequence_bytes(std::string_view text, std::size_t length) {
  std::size_t i = 1;
  while (i < std::min(length, text.size()) && may_follow(byte_at(text, 0), i, byte_at(text, i)))
    ++i;
  return i;
}

}  // namespace

std::size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const std::size_t length = announced_length(byte_at(text, 0));
  return length > 0 && sequence_bytes(text, length) == length ? length : 0;
}

std::size_t utf8_incomplete_suffix(std::string_view text) {
  for (std::size_t count = 1; count <= std::min<std::size_t>(3, text.size()); ++count) {
    const std::string_view suffix = text.substr(text.size() - count);
    if ((byte_at(suffix, 0) & 0xc0) == 0x80) continue;  // not a first byte
    const std::size_t length = announced_length(byte_at(suffix, 0));
    return length > count && sequence_bytes(suffix, length) == count ? count : 0;
  }
  return 0;
}

void append_utf8(std::string& text, std::uint32_t c) {
  const auto add = [&](std::uint32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) {
    add(c);
  } else if (c < 0x800) {
    add(0xc0 | c >> 6);
    add(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    add(0xe0 | c >> 12);
    add(0x80 | (c >> 6 & 0x3f));
    add(0x80 | (c & 0x3f));
  } else {
    add(0xf0 | c >> 18);
    add(0x80 | (c >> 12 & 0x3f));
    add(0x80 | (c >> 6 & 0x3f));
    add(0x80 | (c & 0x3f));
  }
}

std::uint32_t utf8_code_point(std::string_view text, std::size_t length) {
  static constexpr std::uint8_t kFirstBits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
  std::uint32_t c = byte_at(text, 0) & kFirstBits[length];
  for (std::size_t i = 1; i < length; ++i) c = c << 6 | (byte_at(text, i) & 0x3f);
  return c;
}

bool is_white_space(std::uint32_t c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

}  // namespace bitnet
