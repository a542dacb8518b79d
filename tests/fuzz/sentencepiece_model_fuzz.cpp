// SPDX-License-Identifier: MIT
// Any bytes as a SentencePiece model file: refused with an Error, or read as data that is the same
// once written and read again.
#include <string>

#include "core/base/error.h"
#include "core/tokenizer/sentencepiece_model.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bitnet;
  try {
    const std::string_view model(reinterpret_cast<const char*>(data), size);
    const SentencePieceData parsed = parse_sentencepiece(model, "tokenizer.model");
    if (parsed.normalizes) return 0;
    const std::string written = serialize_sentencepiece(parsed);
    const SentencePieceData again = parse_sentencepiece(written, "written");
    if (again.pieces.size() != parsed.pieces.size()) __builtin_trap();
    if (serialize_sentencepiece(again) != written) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
