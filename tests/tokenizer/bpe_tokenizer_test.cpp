// SPDX-License-Identifier: MIT
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/random.h"
#include "core/tokenizer/bpe_merges.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/support/catch.h"
#include "tests/tokenizer/small_bpe.h"

using namespace bitnet;
using test::small_bpe;

namespace {

using Ids = std::vector<std::int32_t>;
constexpr auto kAsTokens = Tokenizer::SpecialTokens::as_tokens;

// Merges by looking at all pairs again after each merge: the definition, slowly.
Ids merge_slowly(const std::string& word, const BpeData& data) {
  std::map<std::string, int> ranks;
  for (const std::string& merge : data.merges) ranks.emplace(merge, ranks.size());
  std::vector<std::string> parts;
  for (const char c : word) parts.push_back(byte_character(static_cast<std::uint8_t>(c)));
  for (;;) {
    std::size_t best = parts.size();
    int best_rank = INT32_MAX;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find(parts[i] + " " + parts[i + 1]);
      if (found == ranks.end() || found->second >= best_rank) continue;
      best = i;
      best_rank = found->second;
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids ids;
  for (const std::string& part : parts)
    ids.push_back(static_cast<std::int32_t>(
        std::find(data.tokens.begin(), data.tokens.end(), part) - data.tokens.begin()));
  return ids;
}

std::uint64_t random(std::uint64_t index, std::uint64_t below) {
  return RandomStream{11, RandomPurpose::test, 0}.below(index, below);
}

// Random merges of tokens that there are, over few bytes, so that they overlap in every way.
BpeData random_bpe(std::uint64_t seed, int merges) {
  std::vector<std::string> parts = {"a", "b", "c"}, list;
  std::set<std::string> known(parts.begin(), parts.end());
  for (std::uint64_t i = 0; static_cast<int>(list.size()) < merges; ++i) {
    const std::string left = parts[random(seed * 100000 + 2 * i, parts.size())];
    const std::string right = parts[random(seed * 100000 + 2 * i + 1, parts.size())];
    if (left.size() + right.size() > 12 || !known.insert(left + right).second) continue;
    parts.push_back(left + right);
    list.push_back(left + " " + right);
  }
  BpeData data = small_bpe(list, {});
  data.split_patterns.clear();
  return data;
}

std::string random_bytes(std::uint64_t seed, std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) bytes += static_cast<char>(random(seed * 1000 + i, 256));
  return bytes;
}

std::string fault_of(BpeData data) {
  try {
    make_bpe_tokenizer(std::move(data), "here.json");
  } catch (const FormatError& e) {
    REQUIRE(std::string(e.what()).starts_with("here.json: "));
    return e.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("merging takes the lowest rank first, the leftmost of equals", "[tokenizer]") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const BpeData data = random_bpe(seed, 40);
    const auto tokenizer = make_bpe_tokenizer(data, "test");
    for (std::uint64_t i = 0; i < 100; ++i) {
      std::string word;
      for (std::uint64_t n = 1 + random(i, 60); word.size() < n;)
        word += "abc"[random(seed * 7919 + i * 101 + word.size(), 3)];
      REQUIRE(tokenizer->encode(word) == merge_slowly(word, data));
    }
  }
}

TEST_CASE("a word of a million bytes is merged quickly", "[tokenizer]") {
  const BpeData data = random_bpe(3, 60);
  const auto tokenizer = make_bpe_tokenizer(data, "test");
  const std::string word(1'000'000, 'a');
  CHECK(tokenizer->decode(tokenizer->encode(word)) == word);
}

// tests/fixtures/make_tokenizer_fixture.py: a tokenizer of LLaMA-3's kind in Hugging Face's library.
TEST_CASE("ids equal those of Hugging Face's tokenizers on difficult strings", "[tokenizer]") {
  const std::filesystem::path folder = BITNET_SOURCE_DIR "/tests/fixtures/tokenizer";
  const auto tokenizer = load_tokenizer(folder);
  const auto fixture = nlohmann::json::parse(read_text_file(folder / "cases.json"));
  CHECK(tokenizer->vocab_size() == 606);
  CHECK(tokenizer->document_start() == tokenizer->find_token("<|begin_of_text|>"));
  REQUIRE(fixture["cases"].size() > 100);
  for (const auto& item : fixture["cases"]) {
    INFO(item["text"].dump(-1, ' ', true));
    const auto text = item["text"].get<std::string>();
    const Ids as_text = tokenizer->encode(text);
    CHECK(as_text == item["as_text"].get<Ids>());
    CHECK(tokenizer->encode(text, kAsTokens) == item["as_tokens"].get<Ids>());
    CHECK(tokenizer->decode(as_text) == text);
  }
}

TEST_CASE("any bytes come back, valid UTF-8 or not", "[tokenizer]") {
  const auto fixture = load_tokenizer(BITNET_SOURCE_DIR "/tests/fixtures/tokenizer");
  const auto small = make_bpe_tokenizer(small_bpe(), "test");
  for (std::uint64_t i = 0; i < 300; ++i) {
    const std::string bytes = random_bytes(i, 1 + i);
    REQUIRE(fixture->decode(fixture->encode(bytes)) == bytes);
    REQUIRE(small->decode(small->encode(bytes)) == bytes);
    REQUIRE(fixture->encode(bytes, kAsTokens).size() <= bytes.size());
  }
}

TEST_CASE("a byte that is not UTF-8 is a word of its own", "[tokenizer]") {
  const auto tokenizer = make_bpe_tokenizer(small_bpe(), "test");
  CHECK(tokenizer->encode("he\xffllo\xe2\x82") == Ids{256, 0xff, 257, 'o', 0xe2, 0x82});
  CHECK(tokenizer->encode("\xe2\x82\xac") == Ids{0xe2, 0x82, 0xac});
}

TEST_CASE("ignore_merges takes a word that is a token whole", "[tokenizer]") {
  BpeData data = small_bpe();
  data.tokens.insert(data.tokens.begin() + 261, "zebra");  // no merges make it
  for (std::int32_t& id : data.special) ++id;
  data.bos = data.special[0];
  data.eos = data.special[1];
  data.end_tokens = {data.special[1]};
  CHECK(make_bpe_tokenizer(data, "test")->encode("zebra") == Ids{'z', 'e', 'b', 'r', 'a'});
  data.ignore_merges = true;
  const auto tokenizer = make_bpe_tokenizer(data, "test");
  CHECK(tokenizer->encode("zebra") == Ids{261});
  CHECK(tokenizer->encode("zebras") == Ids{'z', 'e', 'b', 'r', 'a', 's'});
  CHECK(tokenizer->encode("hello") == Ids{259});
}

TEST_CASE("special tokens are text unless asked for, and decode to nothing", "[tokenizer]") {
  const auto tokenizer = make_bpe_tokenizer(small_bpe(), "test");
  const std::int32_t begin = 261, end = 262;
  CHECK(tokenizer->find_token("<|begin|>") == begin);
  CHECK(tokenizer->find_token("hell") == 258);
  CHECK_FALSE(tokenizer->find_token("<|none|>").has_value());
  CHECK(tokenizer->token_name(end) == "<|end|>");
  CHECK(tokenizer->token_bytes(end).empty());
  CHECK(tokenizer->token_bytes(260) == " w");
  CHECK(tokenizer->document_start() == begin);
  CHECK(Ids(tokenizer->end_tokens().begin(), tokenizer->end_tokens().end()) == Ids{end});
  const std::string text = "hello<|end|> w<|begin|><|end|>";
  CHECK(tokenizer->encode(text, kAsTokens) == Ids{259, end, 260, begin, end});
  CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
  CHECK(tokenizer->decode(tokenizer->encode(text, kAsTokens)) == "hello w");
  CHECK_THROWS_AS(tokenizer->token_bytes(263), ContractError);
  CHECK_THROWS_AS(tokenizer->token_name(-1), ContractError);
}

TEST_CASE("added tokens that are not special are found in any text, the longest first",
          "[tokenizer]") {
  BpeData data = small_bpe();
  const auto add = [&](const char* name) {
    data.added.push_back(static_cast<std::int32_t>(data.tokens.size()));
    data.tokens.emplace_back(name);
    return data.added.back();
  };
  const std::int32_t two = add("  "), three = add("   "), tag = add("<tag>"), taxi = add("<ta");
  data.strip_left = {tag};
  data.strip_right = {tag};
  const auto tokenizer = make_bpe_tokenizer(data, "test");
  CHECK(tokenizer->encode("a     b") == Ids{'a', three, two, 'b'});
  CHECK(tokenizer->encode("a \n<tag>\t\u3000x<tax") == Ids{'a', tag, 'x', taxi, 'x'});
  CHECK(tokenizer->token_bytes(tag) == "<tag>");
}

TEST_CASE("a space before the first word is added once, where asked for", "[tokenizer]") {
  BpeData data = small_bpe();
  data.split_patterns = {kGpt2SplitPattern};
  data.add_prefix_space = true;
  const auto tokenizer = make_bpe_tokenizer(data, "test");
  CHECK(tokenizer->encode("w w") == Ids{260, 260});
  CHECK(tokenizer->encode(" w") == Ids{260});
  CHECK(tokenizer->encode("").empty());
}

TEST_CASE("patterns for the byte alphabet see bytes as characters", "[tokenizer]") {
  BpeData data = small_bpe({"Ã ±", "1 2"});
  CHECK(make_bpe_tokenizer(data, "test")->encode("ñ12") == Ids{256, 257});
  data.spelled_split_patterns = {"±|2"};  // "ñ" is spelled "Ã±"
  CHECK(make_bpe_tokenizer(data, "test")->encode("ñ12") == Ids{0xc3, 0xb1, '1', '2'});
}

TEST_CASE("the tokens of the beginnings of a text are those of the text", "[tokenizer]") {
  const auto fixture = load_tokenizer(BITNET_SOURCE_DIR "/tests/fixtures/tokenizer");
  BpeData with_added = small_bpe();
  with_added.added = {static_cast<std::int32_t>(with_added.tokens.size()),
                      static_cast<std::int32_t>(with_added.tokens.size()) + 1};
  with_added.tokens.insert(with_added.tokens.end(), {"   ", "<tag><tag>"});
  const std::string text =
      "hello  w12345 <tag><tag> \xf0\x9f\x98\x80\xff\xe2\x82 foo     <tag>\r\n\n ñandú's end";
  for (const auto& tokenizer :
       {fixture, make_bpe_tokenizer(with_added, "test"), byte_tokenizer()}) {
    const Ids whole = tokenizer->encode(text);
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
      Ids ids;
      const std::size_t length =
          tokenizer->encode_prefix(std::string_view(text).substr(0, cut), ids);
      REQUIRE(length <= cut);
      const Ids rest = tokenizer->encode(std::string_view(text).substr(length));
      ids.insert(ids.end(), rest.begin(), rest.end());
      REQUIRE(ids == whole);
    }
  }
}

TEST_CASE("a vocabulary that cannot be right is refused with its fault", "[tokenizer]") {
  CHECK(fault_of(small_bpe()) == "none");
  BpeData data = small_bpe();
  data.tokens[300 - 40] = "he";
  CHECK(fault_of(data).find("the token 'he' occurs twice, as 256 and 260") != std::string::npos);
  data = small_bpe();
  data.tokens[65] = "Ġzz";
  CHECK(fault_of(data).find("byte 0x41 has no token") != std::string::npos);
  data = small_bpe();
  data.merges.emplace_back("q z");
  CHECK(fault_of(data).find("there is no token 'qz'") != std::string::npos);
  data = small_bpe();
  data.merges.emplace_back("nobody he");
  CHECK(fault_of(data).find("there is no token 'nobody'") != std::string::npos);
  data = small_bpe();
  data.merges.emplace_back("h e");
  CHECK(fault_of(data).find("occurs twice") != std::string::npos);
  for (const char* merge : {"he", "h e ll", "", " "}) {
    data = small_bpe();
    data.merges.emplace_back(merge);
    CHECK(fault_of(data) != "none");
  }
  data = small_bpe();
  data.special.push_back(263);
  CHECK(fault_of(data).find("special token 263") != std::string::npos);
  data = small_bpe();
  data.bos = -1;
  CHECK(fault_of(data).find("bos token -1") != std::string::npos);
  data = small_bpe();
  data.end_tokens.push_back(1 << 20);
  CHECK(fault_of(data).find("end token") != std::string::npos);
  data = small_bpe();
  data.split_patterns = {"("};
  CHECK(fault_of(data).find("split pattern") != std::string::npos);
}

TEST_CASE("ids without a token stand for nothing", "[tokenizer]") {
  BpeData data = small_bpe();
  data.tokens.resize(300);
  data.tokens.back() = "last";
  const auto tokenizer = make_bpe_tokenizer(data, "test");
  CHECK(tokenizer->vocab_size() == 300);
  CHECK(tokenizer->token_bytes(280).empty());
  CHECK(tokenizer->token_name(280).empty());
  CHECK_FALSE(tokenizer->find_token("").has_value());
}

TEST_CASE("a fingerprint changes with what encoding depends on", "[tokenizer]") {
  std::set<std::string> seen{byte_tokenizer()->fingerprint()};
  const auto is_new = [&](const BpeData& data) {
    return seen.insert(make_bpe_tokenizer(data, "test")->fingerprint()).second;
  };
  BpeData data = small_bpe();
  CHECK(is_new(data));
  CHECK_FALSE(is_new(data));
  data.ignore_merges = true;
  CHECK(is_new(data));
  data.split_patterns = {kGpt2SplitPattern};
  CHECK(is_new(data));
  std::swap(data.merges[0], data.merges[1]);
  CHECK(is_new(data));
  std::swap(data.tokens[256], data.tokens[257]);
  CHECK(is_new(data));
  data.special.pop_back();
  CHECK(is_new(data));
}
