// SPDX-License-Identifier: MIT
#include "core/tokenizer/word_splitter.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/tokenizer/split_pattern.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/utf8.h"
#include "tests/support/catch.h"

using namespace bitnet;

namespace {

using Words = std::vector<std::string>;

Words words_of(const std::vector<std::string>& patterns, std::string_view text) {
  std::vector<std::string_view> words;
  WordSplitter(patterns, "test").split(text, words);
  return Words(words.begin(), words.end());
}

}  // namespace

TEST_CASE("LLaMA-3's pattern cuts the example of its description", "[tokenizer]") {
  const std::string text = "Hello  world 12345's it'LL foo\tbar  \n\n  x=1; 你好 mañana   end";
  const Words expected = {"Hello", " ",   " world", " ",     "123",     "45", "'s",
                          " it",   "'LL", " foo",   "\tbar", "  \n\n",  " ",  " x",
                          "=",     "1",   ";",      " 你好", " mañana", "  ", " end"};
  CHECK(words_of({kLlama3SplitPattern}, text) == expected);
}

// tests/fixtures/make_tokenizer_fixture.py: Hugging Face's tokenizers, whose engine is Oniguruma.
TEST_CASE("every known pattern cuts difficult strings as Oniguruma does", "[tokenizer]") {
  const auto fixture = nlohmann::json::parse(
      read_text_file(BITNET_SOURCE_DIR "/tests/fixtures/tokenizer/cases.json"));
  REQUIRE(fixture["splits"].size() >= 8);
  for (const auto& [name, words] : fixture["splits"].items()) {
    INFO(name);
    const auto patterns = gguf_split_patterns(name);
    REQUIRE(patterns.has_value());
    for (std::size_t i = 0; i < words.size(); ++i) {
      const auto text = fixture["cases"][i]["text"].get<std::string>();
      INFO(fixture["cases"][i]["text"].dump(-1, ' ', true));
      CHECK(words_of(*patterns, text) == words[i].get<Words>());
    }
  }
  CHECK_FALSE(gguf_split_patterns("nobody's").has_value());
  CHECK(gguf_ignores_merges("llama-bpe"));
  CHECK_FALSE(gguf_ignores_merges("gpt-2"));
  CHECK(gguf_adds_bos("llama-bpe"));
  CHECK(gguf_adds_bos("tekken"));
  CHECK_FALSE(gguf_adds_bos("qwen2"));
  CHECK_FALSE(gguf_adds_bos("nobody's"));
}

TEST_CASE("white space, words and lines are Oniguruma's, not PCRE2's", "[tokenizer]") {
  // U+180E has not been white space since Unicode 6.3; U+0085, U+00A0 and U+2028 are.
  CHECK(words_of({R"(\s+)"},
                 "a\u180e\u00a0\u2028"
                 "b") == Words{"a\u180e", "\u00a0\u2028", "b"});
  CHECK(words_of({R"([\s]+)"},
                 "a\u180e\u0085"
                 "b") == Words{"a\u180e", "\u0085", "b"});
  CHECK(words_of({R"(\S+)"},
                 "a\u180e\u0085"
                 "b") == Words{"a\u180e", "\u0085", "b"});
  CHECK(words_of({R"([\S]+)"},
                 "a\u180e\u0085"
                 "b") == Words{"a\u180e", "\u0085", "b"});
  // Combining marks and connectors are parts of words.
  CHECK(words_of({R"(\w+)"}, "e\u0301\u203f!") == Words{"e\u0301\u203f", "!"});
  CHECK(words_of({R"([^\w]+)"}, "e\u0301!") == Words{"e\u0301", "!"});
  CHECK(words_of({R"(\W+)"}, "e\u0301!?") == Words{"e\u0301", "!?"});
  CHECK(words_of({"^."}, "ab\ncd") == Words{"a", "b\n", "c", "d"});
  CHECK(words_of({".$"}, "ab\ncd") == Words{"a", "b", "\nc", "d"});
  CHECK(words_of({R"(\u00e9+)"}, "aéé") == Words{"a", "éé"});
  CHECK(words_of({R"(\p{L}+|\x{21}+)"}, "ab!!") == Words{"ab", "!!"});
}

TEST_CASE("what lies between matches is a word, and a match of nothing divides it", "[tokenizer]") {
  CHECK(words_of({"b+"}, "aabbcc") == Words{"aa", "bb", "cc"});
  CHECK(words_of({"(?=[A-Z])"}, "aBcDé") == Words{"a", "Bc", "Dé"});
  CHECK(words_of({"x*"}, "aéxxb") == Words{"a", "é", "xx", "b"});
  CHECK(words_of({}, "a b") == Words{"a b"});
  CHECK(words_of({"b"}, "").empty());
  CHECK(words_of({"[0-9]+", "5"}, "ab1525c") == Words{"ab", "1", "5", "2", "5", "c"});
}

TEST_CASE("patterns that mean something else in PCRE2 are refused by name", "[tokenizer]") {
  for (const char* pattern : {R"(\p{N}{1,3}+)", R"(\h+)", R"(\bfoo)", R"(\Ka)", R"((?m).)",
                              "[a&&b]", "[a[bc]]", "(?<x>a)", "(*UTF)a", R"(\R)", R"([\W])",
                              R"((a)\1)", "[]a]", "[^]a]", "\\", R"(\u12)", "(?i-m:a)"}) {
    INFO(pattern);
    CHECK_THROWS_AS(WordSplitter(std::vector<std::string>{pattern}, "x.json"), FormatError);
  }
  try {
    to_pcre2(R"(a\bc)", "x.json");
    FAIL("not refused");
  } catch (const FormatError& e) {
    CHECK(std::string(e.what()).find("x.json") != std::string::npos);
    CHECK(std::string(e.what()).find("'\\b' at character 1") != std::string::npos);
  }
}

TEST_CASE("a pattern that is no regular expression is refused with its fault", "[tokenizer]") {
  for (const char* pattern : {"(a", "a)", "[a", "*a", R"(\p{Nonsense})", R"(\x{110000})"}) {
    INFO(pattern);
    CHECK_THROWS_AS(WordSplitter(std::vector<std::string>{pattern}, "x.json"), FormatError);
  }
  CHECK_THROWS_AS(WordSplitter(std::vector<std::string>{std::string(70000, 'a')}, "x"),
                  FormatError);
}

TEST_CASE("a pattern that backs out for ever ends with an error", "[tokenizer]") {
  const WordSplitter splitter(std::vector<std::string>{"(a|aa)+$"}, "x");
  std::vector<std::string_view> words;
  CHECK_THROWS_AS(splitter.split(std::string(60, 'a') + "b", words), Error);
}

TEST_CASE("a million spaces are one word, and need no stack", "[tokenizer]") {
  const std::string text(1'000'000, ' ');
  CHECK(words_of({kLlama3SplitPattern}, text).size() == 1);
  CHECK(words_of({kLlama3SplitPattern}, text + "x").size() == 2);
  CHECK(words_of({"(?:a|b)+"}, std::string(1'000'000, 'a')).size() == 1);
}

TEST_CASE("the words of a beginning are those of the whole", "[tokenizer]") {
  const std::string text =
      "Hello  world 12345's it'LL foo\tbar  \n\n  x=1; 你好 mañana   end <|eot|>  \r\n 'll";
  for (const char* name : {"llama-bpe", "gpt-2", "falcon", "default", "gpt-4o"}) {
    const WordSplitter splitter(*gguf_split_patterns(name), "test");
    std::vector<std::string_view> whole;
    splitter.split(text, whole);
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
      if (utf8_incomplete_suffix(text.substr(0, cut)) > 0) continue;
      std::vector<std::string_view> words;
      const std::size_t length =
          splitter.split_prefix(std::string_view(text).substr(0, cut), words);
      std::size_t sum = 0;
      for (std::size_t i = 0; i < words.size(); ++i) {
        REQUIRE(words[i] == whole.at(i));
        sum += words[i].size();
      }
      REQUIRE(sum == length);
    }
    std::vector<std::string_view> words;
    CHECK(splitter.split_prefix(text, words) > text.size() - 10);  // it does not just give up
  }
}

TEST_CASE("nothing of a text is certain where a pattern looks at what lies before", "[tokenizer]") {
  std::vector<std::string_view> words;
  for (const char* pattern : {"(?<=a)b|.", "(?<!a)b|.", "^a|.", "[a]|(?:^b)|."}) {
    INFO(pattern);
    const WordSplitter splitter(std::vector<std::string>{pattern}, "test");
    CHECK(splitter.split_prefix("ababab", words) == 0);
    CHECK(words.empty());
  }
  for (const char* pattern : {"[^a]|.", R"(\^a|.)", R"([\^a]|.)"}) {
    INFO(pattern);
    const WordSplitter splitter(std::vector<std::string>{pattern}, "test");
    CHECK(splitter.split_prefix("ababab", words) > 3);
  }
}
