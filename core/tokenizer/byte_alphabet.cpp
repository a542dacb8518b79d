// SPDX-License-Identifier: MIT
#include "core/tokenizer/byte_alphabet.h"

#include <array>

#include "core/tokenizer/utf8.h"

namespace bitnet {
namespace {

constexpr std::uint32_t kCharacters = 0x100 + 68;  // all are below it

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<std::int16_t, kCharacters> bytes;  // -1: the character of no byte

  Alphabet() {
    bytes.fill(-1);
    std::uint32_t next = 0x100;
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const std::uint32_t character = printable ? byte : next++;
      append_utf8(characters[byte], character);
      bytes[character] = static_cast<std::int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

const std::string& byte_character(std::uint8_t byte) { return alphabet().characters[byte]; }

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) text += byte_character(static_cast<std::uint8_t>(c));
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return std::nullopt;
    const std::uint32_t character = utf8_code_point(text, length);
    if (character >= kCharacters || alphabet().bytes[character] < 0) return std::nullopt;
    result += static_cast<char>(alphabet().bytes[character]);
    text.remove_prefix(length);
  }
  return result;
}

}  // namespace bitnet
