// SPDX-License-Identifier: MIT
// Writes what parse_tokenizer_json() reads, in the form in which Hugging Face's library saves it.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/tokenizer/split_pattern.h"
#include "core/tokenizer/tokenizer_json.h"

namespace bitnet {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

bool contains(const std::vector<std::int32_t>& ids, std::int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

ordered_json added_token(const BpeData& data, std::int32_t id, bool special) {
  return {{"id", id},
          {"content", data.tokens[static_cast<std::size_t>(id)]},
          {"single_word", false},
          {"lstrip", contains(data.strip_left, id)},
          {"rstrip", contains(data.strip_right, id)},
          {"normalized", false},
          {"special", special}};
}

ordered_json byte_level(bool add_prefix_space, bool trim_offsets) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", false}};
}

ordered_json split(const std::string& pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

ordered_json pre_tokenizer(const BpeData& data) {
  const bool alone = data.split_patterns.empty() && data.spelled_split_patterns.empty();
  if (alone) return byte_level(data.add_prefix_space, false);
  ordered_json parts = ordered_json::array();
  // A space before the first word comes before any split: an alphabet step of its own does that.
  if (data.add_prefix_space && data.split_patterns == std::vector<std::string>{kGpt2SplitPattern}) {
    ordered_json level = byte_level(true, true);
    level["use_regex"] = true;
    parts.push_back(level);
  } else {
    BITNET_CHECK(!data.add_prefix_space,
                 "a tokenizer.json cannot say add_prefix_space with these splits");
    for (const std::string& pattern : data.split_patterns) parts.push_back(split(pattern));
    parts.push_back(byte_level(false, true));
  }
  for (const std::string& pattern : data.spelled_split_patterns) parts.push_back(split(pattern));
  return {{"type", "Sequence"}, {"pretokenizers", parts}};
}

// "<s>" before the text.
ordered_json start_template(const std::string& name, std::int32_t id) {
  const auto special = [&] {
    return ordered_json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
  };
  const auto sequence = [](const char* which, int type) {
    return ordered_json{{"Sequence", {{"id", which}, {"type_id", type}}}};
  };
  ordered_json tokens;
  tokens[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  return {{"type", "TemplateProcessing"},
          {"single", {special(), sequence("A", 0)}},
          {"pair", {special(), sequence("A", 0), special(), sequence("B", 1)}},
          {"special_tokens", tokens}};
}

}  // namespace

std::string tokenizer_json_text(const BpeData& data) {
  ordered_json added = ordered_json::array();
  for (std::size_t i = 0; i < data.tokens.size(); ++i) {  // in the order of their ids
    const auto id = static_cast<std::int32_t>(i);
    if (contains(data.special, id)) added.push_back(added_token(data, id, true));
    if (contains(data.added, id)) added.push_back(added_token(data, id, false));
  }
  ordered_json vocab = ordered_json::object();
  // By way of the underlying list: ordered_json looks for the key among all that are there.
  auto& entries = vocab.get_ref<ordered_json::object_t&>();
  for (std::size_t i = 0; i < data.tokens.size(); ++i) {
    if (!data.tokens[i].empty())
      entries.std::vector<std::pair<const std::string, ordered_json>>::emplace_back(data.tokens[i],
                                                                                    i);
  }
  const ordered_json decoder = {{"type", "ByteLevel"},
                                {"add_prefix_space", data.add_prefix_space},
                                {"trim_offsets", true},
                                {"use_regex", true}};
  ordered_json root;
  root["version"] = "1.0";
  root["truncation"] = nullptr;
  root["padding"] = nullptr;
  root["added_tokens"] = added;
  root["normalizer"] = nullptr;
  root["pre_tokenizer"] = pre_tokenizer(data);
  root["post_processor"] = nullptr;
  if (data.bos)
    root["post_processor"] =
        start_template(data.tokens[static_cast<std::size_t>(*data.bos)], *data.bos);
  root["decoder"] = decoder;
  root["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", data.ignore_merges},
                   {"vocab", vocab},
                   {"merges", data.merges}};
  return root.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace bitnet
