// SPDX-License-Identifier: MIT
// A 64-bit FNV-1a hash of a tokenizer's content, to tell two apart; it protects from mistakes, not
// from malice.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bitnet {

class Fingerprint {
 public:
  void add(std::string_view bytes);  // and its length, so that "ab", "c" differs from "a", "bc"
  void add(std::int64_t number);
  std::string text() const;  // 16 hexadecimal digits

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace bitnet
