// SPDX-License-Identifier: MIT
// GPT-2's spelling of bytes: each of the 256 is one printable character, so that any bytes can be
// written as a JSON string. 33-126, 161-172 and 174-255 are the characters of that number; the
// other 68, in order, are U+0100, U+0101, …
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace bitnet {

// The character of a byte, in UTF-8.
const std::string& byte_character(std::uint8_t byte);

std::string to_byte_alphabet(std::string_view bytes);
// Nothing where a character belongs to no byte, or the text is not UTF-8.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace bitnet
