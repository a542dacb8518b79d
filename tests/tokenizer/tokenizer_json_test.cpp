// SPDX-License-Identifier: MIT
#include "core/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"
#include "tests/tokenizer/small_bpe.h"

using namespace bitnet;
using nlohmann::json;
using test::small_bpe;
using test::TemporaryFolder;

namespace {

using Ids = std::vector<std::int32_t>;

json small_json() { return json::parse(tokenizer_json_text(small_bpe())); }

// The reason for which a changed small_json() is refused, or "none".
template <typename Change>
std::string fault_after(const Change& change) {
  json root = small_json();
  change(root);
  try {
    make_bpe_tokenizer(parse_tokenizer_json(root.dump(), "t.json").data, "t.json");
  } catch (const FormatError& e) {
    return e.what();
  }
  return "none";
}

void check_refused(const char* reason, const std::function<void(json&)>& change) {
  const std::string fault = fault_after(change);
  INFO(fault);
  INFO(reason);
  CHECK(fault.find(reason) != std::string::npos);
}

Ids ends_of(const Tokenizer& tokenizer) {
  return Ids(tokenizer.end_tokens().begin(), tokenizer.end_tokens().end());
}

}  // namespace

TEST_CASE("a written tokenizer.json gives the data back", "[tokenizer]") {
  BpeData data = small_bpe();
  data.ignore_merges = true;
  data.added = {static_cast<std::int32_t>(data.tokens.size())};
  data.tokens.emplace_back("<tag>");
  data.strip_left = data.added;
  const BpeData read = parse_tokenizer_json(tokenizer_json_text(data), "t.json").data;
  CHECK(read.tokens == data.tokens);
  CHECK(read.merges == data.merges);
  CHECK(read.special == data.special);
  CHECK(read.added == data.added);
  CHECK(read.strip_left == data.strip_left);
  CHECK(read.split_patterns == data.split_patterns);
  CHECK(read.ignore_merges);
  CHECK_FALSE(read.add_prefix_space);
  CHECK(read.bos == data.bos);

  data.split_patterns = {kGpt2SplitPattern};
  data.spelled_split_patterns = {"[0-9]"};
  data.add_prefix_space = true;
  const BpeData again = parse_tokenizer_json(tokenizer_json_text(data), "t.json").data;
  CHECK(again.split_patterns == data.split_patterns);
  CHECK(again.spelled_split_patterns == data.spelled_split_patterns);
  CHECK(again.add_prefix_space);
}

TEST_CASE("both spellings of merges are read", "[tokenizer]") {
  json root = small_json();
  for (json& merge : root["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  CHECK(parse_tokenizer_json(root.dump(), "t.json").data.merges == small_bpe().merges);
}

TEST_CASE("pre-tokenizers become split patterns", "[tokenizer]") {
  const auto data_of = [](const char* pre_tokenizer) {
    json root = small_json();
    root["pre_tokenizer"] = json::parse(pre_tokenizer);
    return parse_tokenizer_json(root.dump(), "t.json").data;
  };
  const BpeData gpt2 = data_of(R"({"type":"ByteLevel","add_prefix_space":true,"use_regex":true})");
  CHECK(gpt2.split_patterns == std::vector<std::string>{kGpt2SplitPattern});
  CHECK(gpt2.add_prefix_space);
  CHECK(data_of(R"({"type":"ByteLevel","add_prefix_space":false})").split_patterns.size() == 1);
  CHECK(data_of(R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false})")
            .split_patterns.empty());
  const BpeData falcon = data_of(R"({"type":"Sequence","pretokenizers":[
      {"type":"Punctuation","behavior":"Contiguous"},{"type":"Digits","individual_digits":true},
      {"type":"Split","pattern":{"String":"a.b"},"behavior":"Isolated","invert":false},
      {"type":"ByteLevel","add_prefix_space":false,"use_regex":true},
      {"type":"Split","pattern":{"Regex":"[0-9]"},"behavior":"Isolated","invert":false}]})");
  CHECK(falcon.split_patterns == std::vector<std::string>{R"([\p{P}!-/:-@\[-`{-~]+)", R"(\p{N})",
                                                          R"(a\x{2e}b)", kGpt2SplitPattern});
  CHECK(falcon.spelled_split_patterns == std::vector<std::string>{"[0-9]"});
}

TEST_CASE("what we do not compute is refused by name", "[tokenizer]") {
  check_refused("normalizer 'NFC'", [](json& r) { r["normalizer"] = {{"type", "NFC"}}; });
  check_refused("normalizer 'Lowercase'", [](json& r) {
    r["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}};
  });
  check_refused("model 'WordPiece'", [](json& r) { r["model"]["type"] = "WordPiece"; });
  check_refused("dropout", [](json& r) { r["model"]["dropout"] = 0.1; });
  check_refused("continuing_subword_prefix",
                [](json& r) { r["model"]["continuing_subword_prefix"] = "##"; });
  check_refused("end_of_word_suffix", [](json& r) { r["model"]["end_of_word_suffix"] = "</w>"; });
  check_refused("pre_tokenizer 'Metaspace'", [](json& r) {
    r["pre_tokenizer"] = {{"type", "Metaspace"}};
  });
  check_refused("pre_tokenizer ''", [](json& r) { r["pre_tokenizer"] = nullptr; });
  check_refused("no ByteLevel", [](json& r) { r["pre_tokenizer"]["pretokenizers"].erase(1); });
  check_refused("behavior 'Removed'",
                [](json& r) { r["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; });
  check_refused("add_prefix_space after a split",
                [](json& r) { r["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; });
  check_refused("post_processor 'BertProcessing'", [](json& r) {
    r["post_processor"] = {{"type", "BertProcessing"}};
  });
  check_refused("two tokens before a text", [](json& r) {
    json& single = r["post_processor"]["single"];
    single.insert(single.begin(), single[0]);
  });
  check_refused("decoder 'WordPiece'", [](json& r) { r["decoder"] = {{"type", "WordPiece"}}; });
  check_refused("single_word", [](json& r) { r["added_tokens"][0]["single_word"] = true; });
  check_refused("overlap", [](json& r) {
    r["added_tokens"][0]["normalized"] = true;
    r["added_tokens"][0]["content"] = "<|end|>x";
    r["added_tokens"][0]["id"] = 263;
  });
  check_refused("lstrip or rstrip", [](json& r) {
    r["added_tokens"][0]["normalized"] = true;
    r["added_tokens"][1]["lstrip"] = true;
  });
}

TEST_CASE("a malformed tokenizer.json is refused with its fault", "[tokenizer]") {
  check_refused("it has no \"model\"", [](json& r) { r.erase("model"); });
  check_refused("not a JSON object", [](json& r) { r = json::array(); });
  check_refused("vocab is not an object", [](json& r) { r["model"]["vocab"] = 1; });
  check_refused("vocab is not an object", [](json& r) { r["model"]["vocab"] = json::object(); });
  check_refused("the id of 'he'", [](json& r) { r["model"]["vocab"]["he"] = -1; });
  check_refused("the id of 'he'", [](json& r) { r["model"]["vocab"]["he"] = 1e9; });
  check_refused("the id of 'he'", [](json& r) { r["model"]["vocab"]["he"] = INT64_MAX; });
  check_refused("have the same id 65", [](json& r) { r["model"]["vocab"]["he"] = 65; });
  check_refused("merges is not an array", [](json& r) { r["model"].erase("merges"); });
  check_refused("merge 5 is neither", [](json& r) { r["model"]["merges"].push_back(7); });
  check_refused("merge 5 is neither", [](json& r) { r["model"]["merges"].push_back({"a"}); });
  check_refused("ignore_merges is neither", [](json& r) { r["model"]["ignore_merges"] = 1; });
  check_refused("added_tokens is not an array", [](json& r) { r["added_tokens"] = "x"; });
  check_refused("content is not a string", [](json& r) { r["added_tokens"][0].erase("content"); });
  check_refused("the id of '<|begin|>'", [](json& r) { r["added_tokens"][0].erase("id"); });
  check_refused("is empty", [](json& r) { r["added_tokens"][0]["content"] = ""; });
  check_refused("occurs twice", [](json& r) { r["added_tokens"][0]["id"] = 400; });
  check_refused("pretokenizers is not an array",
                [](json& r) { r["pre_tokenizer"]["pretokenizers"] = 3; });
  check_refused("Regex is not a string", [](json& r) {
    r["pre_tokenizer"]["pretokenizers"][0]["pattern"] = json::object();
  });
  check_refused("is not one token", [](json& r) {
    r["post_processor"]["special_tokens"]["<|begin|>"]["ids"] = json::array();
  });
  check_refused("bos token 900",
                [](json& r) { r["post_processor"]["special_tokens"]["<|begin|>"]["ids"] = {900}; });
}

TEST_CASE("a damaged tokenizer.json never does worse than an error", "[tokenizer]") {
  const std::string text = small_json().dump();
  int refused = 0, cases = 0;
  for (std::size_t i = 0; i < text.size(); i += 11, ++cases) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ (1 << i % 7));
    if (i % 3 == 0) damaged.resize(i);
    try {
      make_bpe_tokenizer(parse_tokenizer_json(damaged, "t.json").data, "t.json")->encode("hello w");
    } catch (const FormatError&) {
      ++refused;
    }
  }
  CHECK(refused > cases / 2);
}

TEST_CASE("a folder's tokenizer is loaded, saved and loaded again", "[tokenizer]") {
  const TemporaryFolder folder, saved;
  CHECK(load_tokenizer(folder.path()) == nullptr);
  make_bpe_tokenizer(small_bpe(), "test")->save(folder.path(), 4096);
  const auto config = json::parse(read_text_file(folder / "tokenizer_config.json"));
  CHECK(config["tokenizer_class"] == "PreTrainedTokenizerFast");
  CHECK(config["model_max_length"] == 4096);
  CHECK(config["bos_token"] == "<|begin|>");
  CHECK(config["eos_token"] == "<|end|>");

  write_file(folder / "chat_template.jinja", "{{ bos_token }}");
  const auto tokenizer = load_tokenizer(folder.path());
  REQUIRE(tokenizer != nullptr);
  CHECK(tokenizer->fingerprint() == make_bpe_tokenizer(small_bpe(), "test")->fingerprint());
  CHECK(tokenizer->document_start() == 261);
  CHECK(ends_of(*tokenizer) == Ids{262});
  tokenizer->save(saved.path());
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    CHECK(read_text_file(saved / name) == read_text_file(folder / name));
  CHECK(load_tokenizer(saved.path())->fingerprint() == tokenizer->fingerprint());
}

TEST_CASE("the files beside tokenizer.json say which tokens end a text", "[tokenizer]") {
  const TemporaryFolder folder;
  BpeData data = small_bpe({"h e"}, {"<|endoftext|>", "<|end|>", "<|eot|>"});  // 257, 258, 259
  data.bos.reset();
  write_file(folder / "tokenizer.json", tokenizer_json_text(data));
  CHECK(load_tokenizer(folder.path())->document_start() == 257);  // by its name
  CHECK(ends_of(*load_tokenizer(folder.path())).empty());

  write_file(folder / "config.json", R"({"bos_token_id": 258, "eos_token_id": 128001})");
  CHECK(load_tokenizer(folder.path())->document_start() == 258);
  CHECK(ends_of(*load_tokenizer(folder.path())).empty());  // no such token here
  write_file(folder / "generation_config.json",
             R"({"bos_token_id": null, "eos_token_id": [259, 258]})");
  CHECK(ends_of(*load_tokenizer(folder.path())) == Ids{259, 258});
  write_file(folder / "tokenizer_config.json",
             R"({"bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|end|>"})");
  CHECK(load_tokenizer(folder.path())->document_start() == 257);
  CHECK(ends_of(*load_tokenizer(folder.path())) == Ids{258, 259});

  write_file(folder / "generation_config.json", R"({"eos_token_id": "x"})");
  CHECK_THROWS_AS(load_tokenizer(folder.path()), FormatError);
  write_file(folder / "generation_config.json", "[]");
  CHECK_THROWS_AS(load_tokenizer(folder.path()), FormatError);
}

TEST_CASE("256 byte tokens in order are the byte tokenizer, however they are written",
          "[tokenizer]") {
  const TemporaryFolder folder;
  byte_tokenizer()->save(folder.path(), 512);
  CHECK(load_tokenizer(folder.path()) == byte_tokenizer());
  const auto root = json::parse(read_text_file(folder / "tokenizer.json"));
  CHECK(root["added_tokens"].empty());
  CHECK(root["model"]["merges"] == json::array());
  CHECK(root["model"]["vocab"].size() == 256);
  CHECK(root["model"]["vocab"]["Ġ"] == 32);
  CHECK(root["model"]["vocab"]["Ā"] == 0);
  CHECK(root["pre_tokenizer"] == json::parse(R"({"type":"ByteLevel","add_prefix_space":false,
                                                 "trim_offsets":false,"use_regex":false})"));
  CHECK(root["decoder"]["type"] == "ByteLevel");
  CHECK(json::parse(read_text_file(folder / "tokenizer_config.json")) ==
        json::parse(R"({"tokenizer_class":"PreTrainedTokenizerFast","model_max_length":512,
                        "clean_up_tokenization_spaces":false})"));
}

TEST_CASE("the byte tokenizer is the identity", "[tokenizer]") {
  const auto bytes = byte_tokenizer();
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  const Ids ids = bytes->encode(all);
  for (int i = 0; i < 256; ++i) {
    REQUIRE(ids[static_cast<std::size_t>(i)] == i);
    REQUIRE(bytes->find_token(bytes->token_name(i)) == i);
  }
  CHECK(bytes->decode(ids) == all);
  CHECK(bytes->vocab_size() == 256);
  CHECK(bytes->document_start() == 0);
  CHECK(ends_of(*bytes) == Ids{0});
  CHECK_FALSE(bytes->find_token("ab").has_value());
  CHECK_THROWS_AS(bytes->token_bytes(256), ContractError);
}

TEST_CASE("SentencePiece written as JSON is refused with advice", "[tokenizer]") {
  const TemporaryFolder folder;
  json root = small_json();
  root["model"]["byte_fallback"] = true;
  write_file(folder / "tokenizer.json", root.dump());
  CHECK_THROWS_WITH(load_tokenizer(folder.path()), Catch::Contains("tokenizer.model"));
  root["model"]["byte_fallback"] = false;
  root["normalizer"] = json::parse(R"({"type":"Sequence","normalizers":[{"type":"Prepend",
      "prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]})");
  write_file(folder / "tokenizer.json", root.dump());
  CHECK_THROWS_WITH(load_tokenizer(folder.path()), Catch::Contains("tokenizer.model"));
}
