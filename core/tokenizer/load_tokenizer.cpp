// SPDX-License-Identifier: MIT
#include <algorithm>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/tokenizer/bpe_tokenizer.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/tokenizer_config.h"
#include "core/tokenizer/tokenizer_json.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxJsonBytes = std::size_t{1} << 27;
constexpr const char* kEndOfText = "<|endoftext|>";  // between two documents in many vocabularies

std::optional<std::int32_t> find(const BpeData& data, const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  const auto found = std::find(data.tokens.begin(), data.tokens.end(), *name);
  if (found == data.tokens.end() || name->empty()) return std::nullopt;
  return static_cast<std::int32_t>(found - data.tokens.begin());
}

// What tokenizer.json leaves open. Ids of the model's configuration that are no tokens here (a
// default that nobody changed, a padded vocabulary) mean nothing.
void complete(BpeData& data, const TokenizerConfig& config) {
  const auto exists = [&](std::int32_t id) {
    return static_cast<std::size_t>(id) < data.tokens.size() &&
           !data.tokens[static_cast<std::size_t>(id)].empty();
  };
  if (!data.bos) data.bos = find(data, config.bos_token);
  if (!data.bos && config.bos_id && exists(*config.bos_id)) data.bos = config.bos_id;
  if (!data.bos) data.bos = find(data, kEndOfText);
  std::vector<std::int32_t> ends;
  if (const auto eos = find(data, config.eos_token)) ends.push_back(*eos);
  ends.insert(ends.end(), config.end_ids.begin(), config.end_ids.end());
  for (const std::int32_t id : ends) {
    const bool listed =
        std::find(data.end_tokens.begin(), data.end_tokens.end(), id) != data.end_tokens.end();
    if (exists(id) && !listed) data.end_tokens.push_back(id);
  }
  if (!data.end_tokens.empty()) data.eos = data.end_tokens.front();
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& folder) {
  const fs::path json = folder / "tokenizer.json", model = folder / "tokenizer.model";
  if (!fs::exists(json)) return fs::exists(model) ? load_sentencepiece(model) : nullptr;
  std::string text = read_text_file(json, kMaxJsonBytes);
  TokenizerJson parsed = parse_tokenizer_json(text, json.string());
  if (parsed.kind == TokenizerJsonKind::sentencepiece) {
    if (fs::exists(model)) return load_sentencepiece(model);
    throw FormatError(json.string(), 0,
                      "this is a SentencePiece tokenizer written as JSON, which this program does "
                      "not compute; put the tokenizer.model that it was made from into the same "
                      "folder, that is read instead");
  }
  if (parsed.only_bytes()) return byte_tokenizer();
  TokenizerConfig config = read_tokenizer_config(folder);
  complete(parsed.data, config);
  config.files["tokenizer.json"] = std::move(text);
  return make_bpe_tokenizer(std::move(parsed.data), json.string(), std::move(config.files));
}

}  // namespace bitnet
