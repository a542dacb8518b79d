// SPDX-License-Identifier: MIT
// tokenizer.model files (LLaMA-2, Mistral, 1bitLLM's models) through the library that defines them.
#include <sentencepiece_processor.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/tokenizer/added_tokens.h"
#include "core/tokenizer/fingerprint.h"
#include "core/tokenizer/sentencepiece_model.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/tokenizer_config.h"

namespace bitnet {
namespace {

using sentencepiece::SentencePieceProcessor;

constexpr std::size_t kMaxModelBytes = std::size_t{1} << 27;
constexpr std::string_view kSpace = "\xe2\x96\x81";  // "▁", SentencePiece's spelling of a space
constexpr std::int32_t kMaxTokens = 1 << 21;

std::string with_spaces(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const std::size_t space = piece.find(kSpace);
    text += piece.substr(0, space);
    if (space == std::string_view::npos) break;
    text += ' ';
    piece.remove_prefix(space + kSpace.size());
  }
  return text;
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // `file` is where the model comes from, for messages.
  SentencePieceTokenizer(std::string model, const std::filesystem::path& file,
                         TokenizerConfig config)
      : model_(std::move(model)), config_(std::move(config)) {
    const auto status = processor_.LoadFromSerializedProto(model_);
    if (!status.ok() || processor_.GetPieceSize() <= 0)
      throw FormatError(file.string(), 0,
                        "this is no SentencePiece model: " + printable(status.ToString()));
    read_pieces();
    read_added_tokens(file.parent_path() / "added_tokens.json");
    special_ = AddedTokens(special_tokens());
    std::vector<int> probe;
    adds_space_ = processor_.Encode("a", &probe).ok() && !probe.empty() &&
                  processor_.IdToPiece(probe[0]).starts_with(kSpace);
    find_ends();
  }

  std::string description() const override {
    return fmt::format("SentencePiece, {} tokens", tokens_.size());
  }
  std::string fingerprint() const override {
    Fingerprint fingerprint;
    fingerprint.add(model_);
    for (std::size_t i = static_cast<std::size_t>(processor_.GetPieceSize()); i < tokens_.size();
         ++i)
      fingerprint.add(tokens_[i].name);
    return fingerprint.text();
  }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(tokens_.size()); }

  std::vector<std::int32_t> encode(std::string_view text, SpecialTokens special) const override {
    std::vector<AddedTokens::Piece> pieces;
    if (special == SpecialTokens::as_tokens) {
      special_.split(text, true, pieces);
    } else if (!text.empty()) {
      pieces.push_back({text});
    }
    std::vector<std::int32_t> ids;
    std::vector<int> of_piece;
    for (const AddedTokens::Piece& piece : pieces) {
      if (piece.id >= 0) {
        ids.push_back(piece.id);
        continue;
      }
      const auto status = processor_.Encode(piece.text, &of_piece);
      if (!status.ok()) throw Error("SentencePiece cannot encode a text: " + status.ToString());
      ids.insert(ids.end(), of_piece.begin(), of_piece.end());
    }
    return ids;
  }

  std::string token_bytes(std::int32_t id) const override { return token(id).bytes; }
  std::string token_name(std::int32_t id) const override { return token(id).name; }
  std::optional<std::int32_t> find_token(std::string_view name) const override {
    const auto found = std::find_if(tokens_.begin(), tokens_.end(),
                                    [&](const Token& token) { return token.name == name; });
    if (found == tokens_.end() || name.empty()) return std::nullopt;
    return static_cast<std::int32_t>(found - tokens_.begin());
  }

  std::optional<std::int32_t> document_start() const override {
    if (processor_.bos_id() >= 0 && config_.add_bos.value_or(true)) return processor_.bos_id();
    if (processor_.eos_id() >= 0) return processor_.eos_id();
    return std::nullopt;
  }
  std::span<const std::int32_t> end_tokens() const override { return ends_; }

  void save(const std::filesystem::path& folder, std::int64_t model_max_length) const override {
    write_file(folder / "tokenizer.model", model_);
    for (const auto& [name, text] : config_.files) write_file(folder / name, text);
    if (config_.files.contains("tokenizer_config.json")) return;
    const auto name_of = [&](int id) {
      return id < 0 ? std::nullopt : std::optional(token(id).name);
    };
    write_file(
        folder / "tokenizer_config.json",
        tokenizer_config_text("LlamaTokenizer", name_of(processor_.bos_id()),
                              name_of(processor_.eos_id()), model_max_length, config_.add_bos));
  }

  std::unique_ptr<SentencePieceData> sentencepiece_data() const override {
    auto data = std::make_unique<SentencePieceData>(parse_sentencepiece(model_, "tokenizer.model"));
    for (std::size_t id = data->pieces.size(); id < tokens_.size(); ++id) {
      const std::string& name = tokens_[id].name;
      data->pieces.push_back({name, 0, name.empty() ? PieceType::unused : PieceType::control});
    }
    return data;
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text = Tokenizer::decode(ids);
    if (adds_space_ && text.starts_with(' ')) text.erase(0, 1);
    return text;
  }

 private:
  struct Token {
    std::string name, bytes;
    bool special = false;
  };

  const Token& token(std::int32_t id) const {
    BITNET_CHECK(id >= 0 && static_cast<std::size_t>(id) < tokens_.size(), "token {} of {}", id,
                 tokens_.size());
    return tokens_[static_cast<std::size_t>(id)];
  }

  void read_pieces() {
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      Token token{processor_.IdToPiece(id), "", false};
      if (processor_.IsControl(id)) {
        token.special = true;
      } else if (processor_.IsByte(id)) {  // "<0x0A>"
        token.bytes = static_cast<char>(std::stoi(token.name.substr(3, 2), nullptr, 16));
      } else if (!processor_.IsUnused(id) && !processor_.IsUnknown(id)) {
        token.bytes = with_spaces(token.name);
      }
      tokens_.push_back(std::move(token));
    }
  }

  // {"<pad>": 32000}: tokens that a model got later.
  void read_added_tokens(const std::filesystem::path& path) {
    const auto text = config_.files.find("added_tokens.json");
    if (text == config_.files.end()) return;
    const nlohmann::json object = parse_json(text->second, path.string(), JsonComments::refuse);
    if (!object.is_object()) throw FormatError(path.string(), 0, "not a JSON object");
    for (const auto& [name, value] : object.items()) {
      if (!value.is_number_integer() || value.get<std::int64_t>() < 0 ||
          value.get<std::int64_t>() >= kMaxTokens || name.empty())
        throw FormatError(path.string(), 0,
                          fmt::format("the id of token {} is not a number in [0, {})",
                                      printable(name), kMaxTokens));
      const auto id = value.get<std::size_t>();
      if (id < tokens_.size() && tokens_[id].name == name) continue;
      if (id < static_cast<std::size_t>(processor_.GetPieceSize()))
        throw FormatError(path.string(), 0,
                          fmt::format("token {} has the id {} of the model's own {}",
                                      printable(name), id, printable(tokens_[id].name)));
      if (id >= tokens_.size()) tokens_.resize(id + 1);
      tokens_[id] = {name, "", true};
    }
  }

  std::vector<AddedTokens::Token> special_tokens() const {
    std::vector<AddedTokens::Token> special;
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id].special)
        special.push_back({tokens_[id].name, static_cast<std::int32_t>(id), false, false});
    }
    return special;
  }

  void find_ends() {
    const auto add = [&](std::int32_t id) {
      const bool exists = id >= 0 && static_cast<std::size_t>(id) < tokens_.size();
      if (exists && std::find(ends_.begin(), ends_.end(), id) == ends_.end()) ends_.push_back(id);
    };
    add(processor_.eos_id());
    if (config_.eos_token) add(find_token(*config_.eos_token).value_or(-1));
    for (const std::int32_t id : config_.end_ids) add(id);
  }

  std::string model_;  // the file
  TokenizerConfig config_;
  SentencePieceProcessor processor_;
  std::vector<Token> tokens_;
  AddedTokens special_;
  bool adds_space_ = false;  // before the first word of a text
  std::vector<std::int32_t> ends_;
};

}  // namespace

std::shared_ptr<const Tokenizer> load_sentencepiece(const std::filesystem::path& file) {
  return std::make_shared<SentencePieceTokenizer>(read_text_file(file, kMaxModelBytes), file,
                                                  read_tokenizer_config(file.parent_path()));
}

std::shared_ptr<const Tokenizer> make_sentencepiece_tokenizer(const SentencePieceData& data,
                                                              bool add_bos,
                                                              std::vector<std::int32_t> end_tokens,
                                                              const std::string& path) {
  TokenizerConfig config;
  config.add_bos = add_bos;
  config.end_ids = std::move(end_tokens);
  return std::make_shared<SentencePieceTokenizer>(serialize_sentencepiece(data), path,
                                                  std::move(config));
}

}  // namespace bitnet
