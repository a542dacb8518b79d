// SPDX-License-Identifier: MIT
#include "core/tokenizer/tokenizer.h"

#include <fmt/format.h>

#include "core/tokenizer/fingerprint.h"
#include "core/tokenizer/sentencepiece_model.h"

namespace bitnet {

std::size_t Tokenizer::encode_prefix(std::string_view, std::vector<std::int32_t>&) const {
  return 0;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) text += token_bytes(id);
  return text;
}

std::unique_ptr<SentencePieceData> Tokenizer::sentencepiece_data() const { return nullptr; }

void Fingerprint::add(std::string_view bytes) {
  add(static_cast<std::int64_t>(bytes.size()));
  for (const char c : bytes) hash_ = (hash_ ^ static_cast<std::uint8_t>(c)) * 0x100000001b3;
}

void Fingerprint::add(std::int64_t number) {
  for (int shift = 0; shift < 64; shift += 8)
    hash_ = (hash_ ^ (static_cast<std::uint64_t>(number) >> shift & 0xff)) * 0x100000001b3;
}

std::string Fingerprint::text() const { return fmt::format("{:016x}", hash_); }

}  // namespace bitnet
