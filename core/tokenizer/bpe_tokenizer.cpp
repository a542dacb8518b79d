// SPDX-License-Identifier: MIT
#include "core/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/tokenizer/added_tokens.h"
#include "core/tokenizer/bpe_merges.h"
#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/fingerprint.h"
#include "core/tokenizer/tokenizer_config.h"
#include "core/tokenizer/tokenizer_json.h"
#include "core/tokenizer/utf8.h"
#include "core/tokenizer/word_splitter.h"

namespace bitnet {
namespace {

using Files = std::map<std::string, std::string>;

bool contains(const std::vector<std::int32_t>& ids, std::int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// What a token is to the encoder.
enum class Role : std::uint8_t { unused, word, added, special };

// BpeData checked, and its tokens as bytes.
struct Vocabulary {
  std::vector<std::string> bytes;  // by id; of special tokens and of unused ids ""
  std::vector<Role> roles;
  std::unordered_map<std::string_view, std::int32_t> words;  // bytes (views of `bytes`) to id
  std::unordered_map<std::string_view, std::int32_t> names;  // of the data's tokens, all of them
  std::array<std::int32_t, 256> byte_ids{};
};

[[noreturn]] void refuse(const std::string& path, const std::string& reason) {
  throw FormatError(path, 0, reason);
}

void check_ids(const BpeData& data, const std::string& path) {
  const auto check = [&](std::int32_t id, const char* what) {
    if (id < 0 || static_cast<std::size_t>(id) >= data.tokens.size() ||
        data.tokens[static_cast<std::size_t>(id)].empty())
      refuse(path, fmt::format("the {} token {} is not in the vocabulary of {} tokens", what, id,
                               data.tokens.size()));
  };
  for (const std::int32_t id : data.special) check(id, "special");
  for (const std::int32_t id : data.added) check(id, "added");
  for (const std::int32_t id : data.end_tokens) check(id, "end");
  if (data.bos) check(*data.bos, "bos");
  if (data.eos) check(*data.eos, "eos");
}

Vocabulary make_vocabulary(const BpeData& data, const std::string& path) {
  if (data.tokens.size() > INT32_MAX) refuse(path, "too many tokens");
  check_ids(data, path);
  Vocabulary v;
  v.bytes.resize(data.tokens.size());
  v.roles.resize(data.tokens.size(), Role::word);
  for (const std::int32_t id : data.added) v.roles[static_cast<std::size_t>(id)] = Role::added;
  for (const std::int32_t id : data.special) v.roles[static_cast<std::size_t>(id)] = Role::special;
  v.byte_ids.fill(-1);
  for (std::size_t i = 0; i < data.tokens.size(); ++i) {
    const std::string& name = data.tokens[i];
    const auto id = static_cast<std::int32_t>(i);
    if (name.empty()) {
      v.roles[i] = Role::unused;
      continue;
    }
    if (const auto [first, unique] = v.names.emplace(name, id); !unique)
      refuse(path, fmt::format("the token {} occurs twice, as {} and {}", printable(name),
                               first->second, id));
    if (v.roles[i] == Role::special) continue;
    const std::optional<std::string> bytes = from_byte_alphabet(name);
    v.bytes[i] = v.roles[i] == Role::word && bytes ? *bytes : name;
    if (v.roles[i] != Role::word || !bytes) continue;
    v.words.emplace(v.bytes[i], id);
    if (bytes->size() == 1) v.byte_ids[static_cast<std::uint8_t>(bytes->front())] = id;
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (v.byte_ids[static_cast<std::size_t>(byte)] < 0)
      refuse(path,
             fmt::format("byte {:#04x} has no token; a byte-level vocabulary has all 256", byte));
  }
  return v;
}

BpeMerges make_merges(const BpeData& data, const Vocabulary& v, const std::string& path) {
  BpeMerges merges(v.byte_ids, data.merges.size());
  for (std::size_t i = 0; i < data.merges.size(); ++i) {
    const std::string_view merge = data.merges[i];
    const std::size_t space = merge.find(' ');
    if (space == std::string_view::npos || merge.find(' ', space + 1) != std::string_view::npos)
      refuse(path, fmt::format("merge {}, {}, is not two tokens with a space between", i,
                               printable(merge)));
    const auto find = [&](std::string_view name) {
      const auto found = v.names.find(name);
      if (found == v.names.end())
        refuse(path, fmt::format("merge {}, {}: there is no token {}", i, printable(merge),
                                 printable(name)));
      return found->second;
    };
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    const std::int32_t left_id = find(left), right_id = find(right);
    if (!merges.add(left_id, right_id, find(std::string(left).append(right))))
      refuse(path, fmt::format("merge {}, {}, occurs twice", i, printable(merge)));
  }
  return merges;
}

AddedTokens make_added_tokens(const BpeData& data, bool with_special) {
  std::vector<AddedTokens::Token> tokens;
  const auto add = [&](const std::vector<std::int32_t>& ids) {
    for (const std::int32_t id : ids)
      tokens.push_back({data.tokens[static_cast<std::size_t>(id)], id,
                        contains(data.strip_left, id), contains(data.strip_right, id)});
  };
  add(data.added);
  if (with_special) add(data.special);
  return AddedTokens(std::move(tokens));
}

std::string make_fingerprint(const BpeData& data) {
  Fingerprint fingerprint;
  for (const auto* list :
       {&data.tokens, &data.merges, &data.split_patterns, &data.spelled_split_patterns}) {
    fingerprint.add(static_cast<std::int64_t>(list->size()));
    for (const std::string& text : *list) fingerprint.add(text);
  }
  for (const auto* ids : {&data.special, &data.added, &data.strip_left, &data.strip_right}) {
    std::vector<std::int32_t> sorted = *ids;
    std::sort(sorted.begin(), sorted.end());
    fingerprint.add(static_cast<std::int64_t>(sorted.size()));
    for (const std::int32_t id : sorted) fingerprint.add(std::int64_t{id});
  }
  fingerprint.add(std::int64_t{data.ignore_merges});
  fingerprint.add(std::int64_t{data.add_prefix_space});
  return fingerprint.text();
}

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(BpeData data, const std::string& path, Files files)
      : data_(std::move(data)),
        files_(std::move(files)),
        vocabulary_(make_vocabulary(data_, path)),
        merges_(make_merges(data_, vocabulary_, path)),
        splitter_(data_.split_patterns, path),
        spelled_splitter_(data_.spelled_split_patterns, path),
        added_(make_added_tokens(data_, false)),
        added_and_special_(make_added_tokens(data_, true)),
        fingerprint_(make_fingerprint(data_)) {
    if (data_.eos && !contains(data_.end_tokens, *data_.eos))
      data_.end_tokens.insert(data_.end_tokens.begin(), *data_.eos);
  }
  BpeTokenizer(const BpeTokenizer&) = delete;  // maps hold views of the strings
  BpeTokenizer& operator=(const BpeTokenizer&) = delete;

  std::string description() const override {
    return fmt::format("byte-level BPE, {} tokens", data_.tokens.size());
  }
  std::string fingerprint() const override { return fingerprint_; }
  std::int64_t vocab_size() const override {
    return static_cast<std::int64_t>(data_.tokens.size());
  }

  std::vector<std::int32_t> encode(std::string_view text, SpecialTokens special) const override {
    std::vector<AddedTokens::Piece> pieces;
    (special == SpecialTokens::as_tokens ? added_and_special_ : added_).split(text, true, pieces);
    Work work;
    for (const AddedTokens::Piece& piece : pieces) {
      if (piece.id >= 0) {
        work.ids.push_back(piece.id);
      } else if (data_.add_prefix_space && piece.text.front() != ' ') {
        std::string spaced(1, ' ');
        spaced += piece.text;
        encode_text(spaced, true, work);
      } else {
        encode_text(piece.text, true, work);
      }
    }
    return std::move(work.ids);
  }

  std::size_t encode_prefix(std::string_view text, std::vector<std::int32_t>& ids) const override {
    if (splitter_.empty() || data_.add_prefix_space || added_.any_strips()) return 0;
    std::vector<AddedTokens::Piece> pieces;
    added_.split(text, false, pieces);
    Work work;
    std::size_t length = 0;
    for (const AddedTokens::Piece& piece : pieces) {
      const bool complete = &piece != &pieces.back();
      if (piece.id >= 0) {
        work.ids.push_back(piece.id);
        length += piece.text.size();
      } else {
        length += encode_text(piece.text, complete, work);
      }
    }
    ids.insert(ids.end(), work.ids.begin(), work.ids.end());
    return length;
  }

  std::string token_bytes(std::int32_t id) const override { return vocabulary_.bytes[index(id)]; }
  std::string token_name(std::int32_t id) const override { return data_.tokens[index(id)]; }
  std::optional<std::int32_t> find_token(std::string_view name) const override {
    const auto found = vocabulary_.names.find(name);
    if (found == vocabulary_.names.end()) return std::nullopt;
    return found->second;
  }

  std::optional<std::int32_t> document_start() const override {
    return data_.bos ? data_.bos : data_.eos;
  }
  std::span<const std::int32_t> end_tokens() const override { return data_.end_tokens; }
  const BpeData* bpe_data() const override { return &data_; }

  void save(const std::filesystem::path& folder, std::int64_t model_max_length) const override {
    for (const auto& [name, text] : files_) write_file(folder / name, text);
    if (!files_.contains("tokenizer.json"))
      write_file(folder / "tokenizer.json", tokenizer_json_text(data_));
    if (!files_.contains("tokenizer_config.json"))
      write_file(folder / "tokenizer_config.json",
                 tokenizer_config_text("PreTrainedTokenizerFast", name_of(data_.bos),
                                       name_of(data_.eos), model_max_length));
  }

 private:
  // What encoding needs from word to word.
  struct Work {
    std::vector<std::int32_t> ids;
    std::vector<std::string_view> words, spelled_words;
    BpeMerges::Scratch scratch;
  };

  std::size_t index(std::int32_t id) const {
    BITNET_CHECK(id >= 0 && static_cast<std::size_t>(id) < data_.tokens.size(), "token {} of {}",
                 id, data_.tokens.size());
    return static_cast<std::size_t>(id);
  }

  std::optional<std::string> name_of(std::optional<std::int32_t> id) const {
    if (!id) return std::nullopt;
    return token_name(*id);
  }

  // A byte that belongs to no code point is a word of its own; regular expressions see the valid
  // text between two of them. Returns the bytes encoded: all, where the text is `complete`.
  std::size_t encode_text(std::string_view text, bool complete, Work& work) const {
    std::size_t begin = 0, i = 0;
    while (i < text.size()) {
      const std::size_t length = utf8_length(text.substr(i));
      if (length > 0) {
        i += length;
        continue;
      }
      if (!complete && i + utf8_incomplete_suffix(text) == text.size()) break;
      encode_valid(text.substr(begin, i - begin), true, work);
      work.ids.push_back(vocabulary_.byte_ids[static_cast<std::uint8_t>(text[i])]);
      begin = ++i;
    }
    return begin + encode_valid(text.substr(begin, i - begin), complete, work);
  }

  std::size_t encode_valid(std::string_view text, bool complete, Work& work) const {
    work.words.clear();
    std::size_t length = text.size();
    if (complete) {
      splitter_.split(text, work.words);
    } else {
      length = splitter_.split_prefix(text, work.words);
    }
    for (const std::string_view word : work.words) {
      if (spelled_splitter_.empty()) {
        encode_word(word, work);
      } else {
        encode_spelled(word, work);
      }
    }
    return length;
  }

  // The words of a word as it is spelled: a character there is a byte here.
  void encode_spelled(std::string_view word, Work& work) const {
    const std::string spelling = to_byte_alphabet(word);
    work.spelled_words.clear();
    spelled_splitter_.split(spelling, work.spelled_words);
    for (const std::string_view part : work.spelled_words) {
      const auto bytes =
          static_cast<std::size_t>(std::count_if(part.begin(), part.end(), [](char c) {
            return (static_cast<std::uint8_t>(c) & 0xc0) != 0x80;
          }));
      encode_word(word.substr(0, bytes), work);
      word.remove_prefix(bytes);
    }
  }

  void encode_word(std::string_view word, Work& work) const {
    if (data_.ignore_merges) {
      if (const auto found = vocabulary_.words.find(word); found != vocabulary_.words.end()) {
        work.ids.push_back(found->second);
        return;
      }
    }
    merges_.merge(word, work.scratch, work.ids);
  }

  BpeData data_;
  Files files_;
  Vocabulary vocabulary_;
  BpeMerges merges_;
  WordSplitter splitter_, spelled_splitter_;
  AddedTokens added_, added_and_special_;
  std::string fingerprint_;
};

}  // namespace

std::shared_ptr<const Tokenizer> make_bpe_tokenizer(BpeData data, const std::string& path,
                                                    Files files) {
  return std::make_shared<BpeTokenizer>(std::move(data), path, std::move(files));
}

std::shared_ptr<const Tokenizer> make_bpe_tokenizer(BpeData data, const std::string& path) {
  return make_bpe_tokenizer(std::move(data), path, {});
}

}  // namespace bitnet
