// SPDX-License-Identifier: MIT
// Any bytes as a tokenizer.json: refused with an Error, or a tokenizer that gives texts back as they
// were and whose own JSON says the same.
#include <string>

#include "core/base/error.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/tokenizer_json.h"

namespace {

constexpr const char* kText = "Hello  world 12345's it'LL\tn\r\n\n \xe4\xbd\xa0\xff <|eot_id|>x";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bitnet;
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    TokenizerJson parsed = parse_tokenizer_json(text, "tokenizer.json");
    if (parsed.kind != TokenizerJsonKind::byte_level_bpe) return 0;
    const std::string written = tokenizer_json_text(parsed.data);
    const auto tokenizer = make_bpe_tokenizer(std::move(parsed.data), "tokenizer.json");
    const auto copy = make_bpe_tokenizer(parse_tokenizer_json(written, "written").data, "written");
    const auto ids = tokenizer->encode(kText);
    if (copy->encode(kText) != ids) __builtin_trap();
    for (const std::int32_t id : ids)
      if (id < 0 || id >= tokenizer->vocab_size()) __builtin_trap();
    tokenizer->encode(kText, Tokenizer::SpecialTokens::as_tokens);
    tokenizer->decode(ids);
  } catch (const Error&) {
  }
  return 0;
}
