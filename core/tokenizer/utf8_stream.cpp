// SPDX-License-Identifier: MIT
#include "core/tokenizer/utf8_stream.h"

#include <algorithm>

#include "core/tokenizer/utf8.h"

namespace bitnet {

std::string Utf8Stream::add(std::string_view bytes) {
  pending_ += bytes;
  return give_out(pending_.size() - utf8_incomplete_suffix(pending_));
}

std::string Utf8Stream::finish() { return give_out(pending_.size()); }

std::string Utf8Stream::give_out(std::size_t end) {
  std::string text;
  if (invalid_ == Invalid::keep) {
    text = pending_.substr(0, end);
  } else {
    for (std::size_t i = 0; i < end;) {
      const std::size_t length = utf8_length(std::string_view(pending_).substr(i, end - i));
      if (length > 0) {
        text.append(pending_, i, length);
      } else {
        append_utf8(text, 0xfffd);
      }
      i += std::max<std::size_t>(length, 1);
    }
  }
  pending_.erase(0, end);
  return text;
}

}  // namespace bitnet
