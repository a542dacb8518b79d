// SPDX-License-Identifier: MIT
// Any bytes as a text: a LLaMA-3-style tokenizer gives them back as they were.
#include <memory>
#include <string>

#include "core/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto tokenizer =
      bitnet::load_tokenizer(BITNET_SOURCE_DIR "/tests/fixtures/tokenizer");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (tokenizer->decode(tokenizer->encode(text)) != text) __builtin_trap();
  tokenizer->encode(text, bitnet::Tokenizer::SpecialTokens::as_tokens);
  return 0;
}
