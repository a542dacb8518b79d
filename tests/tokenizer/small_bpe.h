// SPDX-License-Identifier: MIT
// A byte-level BPE small enough to be written down: the 256 bytes, the given merges, special tokens.
#pragma once

#include <string>
#include <vector>

#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/split_pattern.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet::test {

// Ids: bytes 0 .. 255, then the products of the merges in order, then the special tokens.
inline BpeData small_bpe(std::vector<std::string> merges = {"h e", "l l", "he ll", "hell o", "Ġ w"},
                         std::vector<std::string> special = {"<|begin|>", "<|end|>"}) {
  BpeData data;
  for (int byte = 0; byte < 256; ++byte)
    data.tokens.push_back(byte_character(static_cast<std::uint8_t>(byte)));
  for (std::string merge : merges) {
    merge.erase(merge.find(' '), 1);
    data.tokens.push_back(merge);
  }
  for (const std::string& name : special) {
    data.special.push_back(static_cast<std::int32_t>(data.tokens.size()));
    data.tokens.push_back(name);
  }
  data.merges = std::move(merges);
  data.split_patterns = {kLlama3SplitPattern};
  if (special.size() >= 2) {
    data.bos = data.special[0];
    data.eos = data.special[1];
    data.end_tokens = {data.special[1]};
  }
  return data;
}

}  // namespace bitnet::test
