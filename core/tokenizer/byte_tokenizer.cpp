// SPDX-License-Identifier: MIT
// id = byte. Byte 0 is the end of a document, and so precedes the next one.
#include <array>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/tokenizer_config.h"
#include "core/tokenizer/tokenizer_json.h"

namespace bitnet {
namespace {

constexpr std::int64_t kBytes = 256;
constexpr std::array<std::int32_t, 1> kEnd{0};

void append_bytes(std::string_view text, std::vector<std::int32_t>& ids) {
  for (const char c : text) ids.push_back(static_cast<std::uint8_t>(c));
}

class ByteTokenizer final : public Tokenizer {
 public:
  std::string description() const override { return "bytes"; }
  std::string fingerprint() const override { return "0000000000000100"; }
  std::int64_t vocab_size() const override { return kBytes; }

  std::vector<std::int32_t> encode(std::string_view text, SpecialTokens) const override {
    std::vector<std::int32_t> ids;
    ids.reserve(text.size());
    append_bytes(text, ids);
    return ids;
  }
  std::size_t encode_prefix(std::string_view text, std::vector<std::int32_t>& ids) const override {
    append_bytes(text, ids);
    return text.size();
  }

  std::string token_bytes(std::int32_t id) const override {
    BITNET_CHECK(id >= 0 && id < kBytes, "token {} of {}", id, kBytes);
    return std::string(1, static_cast<char>(id));
  }
  std::string token_name(std::int32_t id) const override {
    return byte_character(static_cast<std::uint8_t>(token_bytes(id)[0]));
  }
  std::optional<std::int32_t> find_token(std::string_view name) const override {
    const std::optional<std::string> bytes = from_byte_alphabet(name);
    if (!bytes || bytes->size() != 1) return std::nullopt;
    return static_cast<std::uint8_t>(bytes->front());
  }

  std::optional<std::int32_t> document_start() const override { return kEnd[0]; }
  std::span<const std::int32_t> end_tokens() const override { return kEnd; }

  void save(const std::filesystem::path& folder, std::int64_t model_max_length) const override {
    BpeData data;
    for (int byte = 0; byte < kBytes; ++byte)
      data.tokens.push_back(byte_character(static_cast<std::uint8_t>(byte)));
    write_file(folder / "tokenizer.json", tokenizer_json_text(data));
    write_file(folder / "tokenizer_config.json",
               tokenizer_config_text("PreTrainedTokenizerFast", {}, {}, model_max_length));
  }
};

}  // namespace

std::shared_ptr<const Tokenizer> byte_tokenizer() {
  static const std::shared_ptr<const Tokenizer> instance = std::make_shared<ByteTokenizer>();
  return instance;
}

}  // namespace bitnet
