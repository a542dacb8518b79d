// SPDX-License-Identifier: MIT
#include "core/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/split_pattern.h"

namespace bitnet {
namespace {

using nlohmann::json;

// Tokens that no id may lie beyond: eight times the largest vocabulary there is.
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 21;

// Punctuation of the pre-tokenizer of that name: ASCII's, and Unicode's category P.
constexpr const char* kPunctuation = R"([\p{P}!-/:-@\[-`{-~])";

// "a.b" escaped so that it means itself.
std::string literal_pattern(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80 && !std::isalnum(static_cast<unsigned char>(c))) {
      pattern += fmt::format("\\x{{{:02x}}}", static_cast<unsigned char>(c));
    } else {
      pattern += c;
    }
  }
  return pattern;
}

class Reader {
 public:
  Reader(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  TokenizerJson read() {
    const json root = parse_json(text_, path_, JsonComments::refuse);
    if (!root.is_object()) refuse("", "this is no tokenizer.json: not a JSON object");
    if (!root.contains("model") || !root["model"].is_object())
      refuse("model", "this is no tokenizer.json: it has no \"model\"");
    const json& model = root["model"];
    TokenizerJson result;
    if (is_sentencepiece(root, model)) {
      result.kind = TokenizerJsonKind::sentencepiece;
      return result;
    }
    read_normalizer(member(root, "normalizer"));
    read_model(model);
    read_added_tokens(member(root, "added_tokens"));
    read_pre_tokenizer(member(root, "pre_tokenizer"));
    read_post_processor(member(root, "post_processor"));
    read_decoder(member(root, "decoder"));
    result.data = std::move(data_);
    return result;
  }

 private:
  // LLaMA-2's kind: a SentencePiece model written as BPE, with "▁" for spaces and bytes as "<0x00>".
  static bool is_sentencepiece(const json& root, const json& model) {
    if (member(model, "byte_fallback") == json(true) || type_of(model) == "Unigram") return true;
    const json& normalizer = member(root, "normalizer");
    if (type_of(normalizer) == "Prepend") return true;
    const json& parts = member(normalizer, "normalizers");
    return parts.is_array() && std::any_of(parts.begin(), parts.end(), [](const json& part) {
             return type_of(part) == "Prepend";
           });
  }

  static const json& member(const json& object, const char* key) {
    static const json kNull;
    if (!object.is_object()) return kNull;
    const auto found = object.find(key);
    return found == object.end() ? kNull : *found;
  }

  static std::string type_of(const json& object) {
    const json& type = member(object, "type");
    return type.is_string() ? type.get<std::string>() : std::string();
  }

  bool flag(const json& object, const char* key, bool absent) const {
    const json& value = member(object, key);
    if (value.is_null()) return absent;
    if (!value.is_boolean()) refuse(key, fmt::format("{} is neither true nor false", key));
    return value.get<bool>();
  }

  const std::string& text(const json& object, const char* key, const char* of) const {
    const json& value = member(object, key);
    if (!value.is_string()) refuse(key, fmt::format("{}: {} is not a string", of, key));
    return value.get_ref<const std::string&>();
  }

  std::int32_t id(const json& value, const std::string& of) const {
    if (!value.is_number_integer() || value.get<std::int64_t>() < 0 ||
        value.get<std::int64_t>() >= kMaxTokens)
      refuse("", fmt::format("the id of {} is not a number in [0, {})", printable(of), kMaxTokens));
    return value.get<std::int32_t>();
  }

  // parts of {"type": "Sequence", key: [...]}, or the object itself.
  std::vector<const json*> parts_of(const json& object, const char* key) const {
    if (type_of(object) != "Sequence") return {&object};
    const json& list = member(object, key);
    if (!list.is_array()) refuse(key, fmt::format("{} is not an array", key));
    std::vector<const json*> parts;
    for (const json& part : list) parts.push_back(&part);
    return parts;
  }

  void read_normalizer(const json& normalizer) const {
    if (normalizer.is_null()) return;
    for (const json* part : parts_of(normalizer, "normalizers"))
      refuse("normalizer", fmt::format("normalizer {}: this program reads byte-level tokenizers "
                                       "that leave their text as it is (normalizer null)",
                                       printable(type_of(*part))));
  }

  void read_model(const json& model) {
    const std::string type = type_of(model);
    if (type != "BPE" && !(type.empty() && model.contains("merges")))
      refuse("model", fmt::format("model {}: expected BPE", printable(type)));
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const json& value = member(model, key);
      if (!value.is_null() && value != json(""))
        refuse(key, fmt::format("{}: expected none in a byte-level tokenizer", key));
    }
    const json& dropout = member(model, "dropout");
    if (!dropout.is_null() && !(dropout.is_number() && dropout.get<double>() == 0))
      refuse("dropout", "dropout: expected none");
    data_.ignore_merges = flag(model, "ignore_merges", false);

    const json& vocab = member(model, "vocab");
    if (!vocab.is_object() || vocab.empty()) refuse("vocab", "vocab is not an object of tokens");
    for (const auto& [name, value] : vocab.items()) put(name, id(value, name));
    const json& merges = member(model, "merges");
    if (!merges.is_array()) refuse("merges", "merges is not an array");
    data_.merges.reserve(merges.size());
    for (const json& merge : merges) data_.merges.push_back(merge_text(merge));
  }

  // "a b", or ["a", "b"].
  std::string merge_text(const json& merge) const {
    if (merge.is_string()) return merge.get<std::string>();
    if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string())
      refuse("merges",
             fmt::format("merge {} is neither \"a b\" nor [\"a\", \"b\"]", data_.merges.size()));
    return merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }

  void put(const std::string& name, std::int32_t id) {
    const auto index = static_cast<std::size_t>(id);
    if (index >= data_.tokens.size()) data_.tokens.resize(index + 1);
    std::string& place = data_.tokens[index];
    if (name.empty()) refuse("", fmt::format("the token of id {} is empty", id));
    if (!place.empty() && place != name)
      refuse("", fmt::format("tokens {} and {} have the same id {}", printable(place),
                             printable(name), id));
    place = name;
  }

  void read_added_tokens(const json& tokens) {
    if (tokens.is_null()) return;
    if (!tokens.is_array()) refuse("added_tokens", "added_tokens is not an array");
    std::vector<std::string> before, after;  // what is found before, and after, normalisation
    for (const json& token : tokens) {
      const std::string& name = text(token, "content", "added_tokens");
      const std::int32_t number = id(member(token, "id"), name);
      put(name, number);
      if (flag(token, "single_word", false))
        refuse("single_word", fmt::format("added token {}: single_word is not computed by this "
                                          "program",
                                          printable(name)));
      const bool special = flag(token, "special", false);
      (special ? data_.special : data_.added).push_back(number);
      if (flag(token, "lstrip", false)) data_.strip_left.push_back(number);
      if (flag(token, "rstrip", false)) data_.strip_right.push_back(number);
      (flag(token, "normalized", !special) ? after : before).push_back(name);
    }
    if (!before.empty() && !after.empty()) {
      if (!data_.strip_left.empty() || !data_.strip_right.empty())
        refuse("normalized",
               "added tokens with lstrip or rstrip of which only some are "
               "\"normalized\" are not computed by this program");
      check_apart(before, after);
    }
  }

  // Without a normalizer, looking for both kinds at once is the same unless one overlaps another.
  void check_apart(const std::vector<std::string>& before,
                   const std::vector<std::string>& after) const {
    const auto overlap = [](const std::string& a, const std::string& b) {
      if (a.find(b) != std::string::npos || b.find(a) != std::string::npos) return true;
      for (std::size_t n = 1; n < std::min(a.size(), b.size()); ++n) {
        if (a.ends_with(std::string_view(b).substr(0, n)) ||
            b.ends_with(std::string_view(a).substr(0, n)))
          return true;
      }
      return false;
    };
    for (const std::string& a : before) {
      for (const std::string& b : after) {
        if (overlap(a, b))
          refuse("normalized",
                 fmt::format("added tokens {} and {} overlap, and only one is \"normalized\"",
                             printable(a), printable(b)));
      }
    }
  }

  void read_pre_tokenizer(const json& pre_tokenizer) {
    bool spelled = false;  // after ByteLevel, patterns see the byte alphabet
    for (const json* part : parts_of(pre_tokenizer, "pretokenizers")) {
      auto& patterns = spelled ? data_.spelled_split_patterns : data_.split_patterns;
      const std::string type = type_of(*part);
      if (type == "Split") {
        patterns.push_back(split_pattern(*part));
      } else if (type == "Digits") {
        patterns.push_back(flag(*part, "individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
      } else if (type == "Punctuation") {
        const std::string behavior = part->value("behavior", json("Isolated")).dump();
        if (behavior != "\"Isolated\"" && behavior != "\"Contiguous\"")
          refuse("behavior", fmt::format("Punctuation with behavior {}", printable(behavior)));
        patterns.push_back(kPunctuation + std::string(behavior == "\"Contiguous\"" ? "+" : ""));
      } else if (type == "ByteLevel" && !spelled) {
        data_.add_prefix_space = flag(*part, "add_prefix_space", true);
        if (data_.add_prefix_space && !patterns.empty())
          refuse("add_prefix_space",
                 "add_prefix_space after a split is not computed by this program");
        if (flag(*part, "use_regex", true)) patterns.push_back(kGpt2SplitPattern);
        spelled = true;
      } else {
        refuse("pre_tokenizer", fmt::format("pre_tokenizer {}: expected Split, Digits, Punctuation "
                                            "and one ByteLevel",
                                            printable(type)));
      }
    }
    if (!spelled) refuse("pre_tokenizer", "pre_tokenizer has no ByteLevel: not a byte-level BPE");
  }

  std::string split_pattern(const json& split) const {
    const std::string& behavior = text(split, "behavior", "Split");
    if (behavior != "Isolated")
      refuse("behavior",
             fmt::format("Split with behavior {}: expected Isolated", printable(behavior)));
    const json& pattern = member(split, "pattern");
    if (pattern.is_object() && pattern.contains("String"))
      return literal_pattern(text(pattern, "String", "Split"));
    return text(pattern, "Regex", "Split: pattern");
  }

  void read_post_processor(const json& processor) {
    if (processor.is_null()) return;
    for (const json* part : parts_of(processor, "processors")) {
      const std::string type = type_of(*part);
      if (type == "TemplateProcessing") {
        read_template(*part);
      } else if (type != "ByteLevel") {  // ByteLevel only trims offsets
        refuse("post_processor",
               fmt::format("post_processor {}: expected ByteLevel or TemplateProcessing",
                           printable(type)));
      }
    }
  }

  // [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, …]
  void read_template(const json& processor) {
    const json& items = member(processor, "single");
    if (!items.is_array()) refuse("single", "TemplateProcessing: single is not an array");
    bool text_seen = false;
    for (const json& item : items) {
      const json& special = member(item, "SpecialToken");
      if (special.is_null()) {
        text_seen = true;
        continue;
      }
      const std::string& name = text(special, "id", "TemplateProcessing: SpecialToken");
      const json& ids = member(member(member(processor, "special_tokens"), name.c_str()), "ids");
      if (!ids.is_array() || ids.size() != 1)
        refuse("special_tokens",
               fmt::format("TemplateProcessing: {} is not one token", printable(name)));
      if (text_seen) {
        data_.end_tokens.push_back(id(ids[0], name));
      } else if (data_.bos) {
        refuse("single", "TemplateProcessing puts two tokens before a text; expected at most one");
      } else {
        data_.bos = id(ids[0], name);
      }
    }
  }

  void read_decoder(const json& decoder) const {
    if (decoder.is_null()) return;
    for (const json* part : parts_of(decoder, "decoders")) {
      if (type_of(*part) != "ByteLevel" && type_of(*part) != "Fuse")
        refuse("decoder", fmt::format("decoder {}: expected ByteLevel", printable(type_of(*part))));
    }
  }

  // At the place where the file first mentions `key`, near enough for a message.
  [[noreturn]] void refuse(std::string_view key, const std::string& reason) const {
    const std::size_t found = key.empty() ? 0 : text_.find(fmt::format("\"{}\"", key));
    throw FormatError(path_, found == std::string_view::npos ? 0 : found, reason);
  }

  std::string_view text_;
  const std::string& path_;
  BpeData data_;
};

}  // namespace

bool TokenizerJson::only_bytes() const {
  if (data.tokens.size() != 256 || !data.merges.empty() || !data.special.empty() ||
      !data.added.empty() || data.add_prefix_space)
    return false;
  for (std::size_t i = 0; i < 256; ++i) {
    if (data.tokens[i] != byte_character(static_cast<std::uint8_t>(i))) return false;
  }
  return true;
}

TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& path) {
  return Reader(text, path).read();
}

}  // namespace bitnet
