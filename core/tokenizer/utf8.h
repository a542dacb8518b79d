// SPDX-License-Identifier: MIT
// Which bytes are UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bitnet {

// Bytes of the code point that `text` begins with, 1 to 4; 0 where its first byte begins none,
// because it is invalid or because the text ends too early.
std::size_t utf8_length(std::string_view text);

// Bytes at the end of `text` that begin a code point whose other bytes are still to come, 0 to 3.
std::size_t utf8_incomplete_suffix(std::string_view text);

void append_utf8(std::string& text, std::uint32_t code_point);

// The code point that `text` begins with, of `length` = utf8_length(text) > 0 bytes.
std::uint32_t utf8_code_point(std::string_view text, std::size_t length);

// Unicode's property White_Space.
bool is_white_space(std::uint32_t code_point);

}  // namespace bitnet
