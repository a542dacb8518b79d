// SPDX-License-Identifier: MIT
#include "core/tokenizer/utf8.h"

#include "core/tokenizer/utf8_stream.h"
#include "tests/support/catch.h"

using namespace bitnet;

TEST_CASE("every code point has its UTF-8 length, and comes back from its bytes", "[tokenizer]") {
  for (std::uint32_t c = 0; c <= 0x10ffff; c += c < 0x3000 ? 1 : 97) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string text;
    append_utf8(text, c);
    const std::size_t expected = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    REQUIRE(utf8_length(text) == expected);
    REQUIRE(utf8_code_point(text, expected) == c);
    for (std::size_t cut = 1; cut < expected; ++cut) {
      REQUIRE(utf8_length(text.substr(0, cut)) == 0);
      REQUIRE(utf8_incomplete_suffix(std::string("x").append(text, 0, cut)) == cut);
    }
    REQUIRE(utf8_incomplete_suffix(text) == 0);
  }
}

TEST_CASE("overlong forms, surrogates and what lies above U+10FFFF are not UTF-8", "[tokenizer]") {
  for (const std::string text :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80",
        "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xff", "\xc3(", "\xe2\x82(", "\xf0\x9f\x98("}) {
    CHECK(utf8_length(text) == 0);
    CHECK(utf8_incomplete_suffix(text) == 0);
  }
  CHECK(utf8_length("") == 0);
  CHECK(utf8_incomplete_suffix("") == 0);
}

TEST_CASE("a stream gives out whole code points only, wherever tokens end", "[tokenizer]") {
  const std::string text = "a\xc3\xb1\xe2\x82\xac\xf0\x9f\x98\x80z";  // añ€😀z
  for (const auto invalid : {Utf8Stream::Invalid::keep, Utf8Stream::Invalid::replace}) {
    for (std::size_t first = 0; first <= text.size(); ++first) {
      for (std::size_t second = first; second <= text.size(); ++second) {
        Utf8Stream stream(invalid);
        std::string result;
        for (const std::string& part :
             {text.substr(0, first), text.substr(first, second - first), text.substr(second)}) {
          const std::string given = stream.add(part);
          REQUIRE(utf8_incomplete_suffix(given) == 0);
          result += given;
        }
        REQUIRE(result == text);  // nothing waits for finish() at the end of a code point
        REQUIRE(stream.finish().empty());
      }
    }
  }
}

TEST_CASE("bytes that are not UTF-8 are kept for a pipe and replaced for a terminal",
          "[tokenizer]") {
  Utf8Stream keep(Utf8Stream::Invalid::keep), replace(Utf8Stream::Invalid::replace);
  const std::string text =
      "a\xff\xe2\x82"
      "b";
  CHECK(keep.add(text) + keep.finish() == text);
  CHECK(replace.add(text) ==
        "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
        "b");
  CHECK(replace.finish().empty());
  CHECK(replace.add("x\xf0\x9f") == "x");
  CHECK(replace.finish() == "\xef\xbf\xbd\xef\xbf\xbd");
  CHECK(keep.add("x\xf0\x9f") == "x");
  CHECK(keep.finish() == "\xf0\x9f");
  CHECK(keep.finish().empty());
}
