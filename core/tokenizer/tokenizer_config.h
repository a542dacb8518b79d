// SPDX-License-Identifier: MIT
// The files beside tokenizer.json and tokenizer.model that say which tokens begin and end a text:
// tokenizer_config.json (or the older special_tokens_map.json) by name, generation_config.json and
// config.json by id.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace bitnet {

struct TokenizerConfig {
  std::optional<std::string> bos_token, eos_token;
  std::optional<std::int32_t> bos_id;
  std::optional<bool> add_bos;  // whether bos_token begins every text
  std::vector<std::int32_t> end_ids;
  // By name, the text of those files that belong to the tokenizer, for Tokenizer::save().
  std::map<std::string, std::string> files;
};

// Missing files say nothing. Throws FormatError for damaged ones.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

// A tokenizer_config.json. A `model_max_length` of 0 is left out, and so is what is not said.
std::string tokenizer_config_text(const std::string& tokenizer_class,
                                  const std::optional<std::string>& bos_token,
                                  const std::optional<std::string>& eos_token,
                                  std::int64_t model_max_length,
                                  std::optional<bool> add_bos = std::nullopt);

}  // namespace bitnet
