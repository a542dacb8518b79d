// SPDX-License-Identifier: MIT
// Tokens end anywhere, also within a code point. What is printed while it is generated waits here
// until its code points are whole, so that a terminal or a JSON string never sees half of one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bitnet {

class Utf8Stream {
 public:
  // What becomes of bytes that are not UTF-8, and of a code point that the text ends in: a file or
  // a pipe gets the very bytes of the tokens (keep); a terminal, and whatever else must be valid,
  // gets U+FFFD, one for each byte that belongs to no code point (replace).
  enum class Invalid : std::uint8_t { keep, replace };

  explicit Utf8Stream(Invalid invalid) : invalid_(invalid) {}

  // What can be given out now that `bytes` have come.
  std::string add(std::string_view bytes);
  // What is left at the end of the text. The stream is then as new.
  std::string finish();

 private:
  std::string give_out(std::size_t end);

  Invalid invalid_;
  std::string pending_;
};

}  // namespace bitnet
