// SPDX-License-Identifier: MIT
#include "core/tokenizer/tokenizer_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/base/file.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::size_t kMaxBytes = std::size_t{1} << 26;

// A JSON object in a file, or an empty one where there is no such file.
json read_object(const fs::path& path, std::string* text = nullptr) {
  if (!fs::exists(path)) return json::object();
  std::string content = read_text_file(path, kMaxBytes);
  json object = parse_json(content, path.string(), JsonComments::refuse);
  if (!object.is_object()) throw FormatError(path.string(), 0, "not a JSON object");
  if (text != nullptr) *text = std::move(content);
  return object;
}

// "<s>", or {"content": "<s>", …}; nothing for null.
void read_name(const json& object, const char* key, const fs::path& path,
               std::optional<std::string>& name) {
  const auto found = object.find(key);
  if (name || found == object.end() || found->is_null()) return;
  const json& value =
      found->is_object() && found->contains("content") ? (*found)["content"] : *found;
  if (!value.is_string())
    throw FormatError(path.string(), 0, fmt::format("{} is not the name of a token", key));
  name = value.get<std::string>();
}

// A number, an array of them, or null. Negative ones mean none.
std::vector<std::int32_t> read_ids(const json& object, const char* key, const fs::path& path) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return {};
  std::vector<std::int32_t> ids;
  for (const json& id : found->is_array() ? *found : json::array({*found})) {
    if (!id.is_number_integer() || id.get<std::int64_t>() > INT32_MAX)
      throw FormatError(path.string(), 0, fmt::format("{} holds something other than ids", key));
    if (id.get<std::int64_t>() >= 0) ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

}  // namespace

TokenizerConfig read_tokenizer_config(const fs::path& folder) {
  TokenizerConfig config;
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    std::string text;
    const json object = read_object(folder / name, &text);
    read_name(object, "bos_token", folder / name, config.bos_token);
    read_name(object, "eos_token", folder / name, config.eos_token);
    if (const auto found = object.find("add_bos_token"); found != object.end()) {
      if (found->is_boolean()) config.add_bos = found->get<bool>();
    }
    if (!text.empty()) config.files[name] = std::move(text);
  }
  for (const char* name : {"chat_template.jinja", "added_tokens.json"}) {
    if (fs::exists(folder / name)) config.files[name] = read_text_file(folder / name, kMaxBytes);
  }
  for (const char* name : {"generation_config.json", "config.json"}) {
    const json object = read_object(folder / name);
    const auto bos = read_ids(object, "bos_token_id", folder / name);
    if (!config.bos_id && !bos.empty()) config.bos_id = bos.front();
    for (const std::int32_t id : read_ids(object, "eos_token_id", folder / name)) {
      if (std::find(config.end_ids.begin(), config.end_ids.end(), id) == config.end_ids.end())
        config.end_ids.push_back(id);
    }
  }
  return config;
}

std::string tokenizer_config_text(const std::string& tokenizer_class,
                                  const std::optional<std::string>& bos_token,
                                  const std::optional<std::string>& eos_token,
                                  std::int64_t model_max_length, std::optional<bool> add_bos) {
  ordered_json object;
  object["tokenizer_class"] = tokenizer_class;
  object["clean_up_tokenization_spaces"] = false;
  if (model_max_length > 0) object["model_max_length"] = model_max_length;
  if (bos_token) object["bos_token"] = *bos_token;
  if (eos_token) object["eos_token"] = *eos_token;
  if (add_bos) object["add_bos_token"] = *add_bos;
  return object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace bitnet
