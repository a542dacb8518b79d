// SPDX-License-Identifier: MIT
#include "core/tokenizer/split_pattern.h"

#include <algorithm>
#include <iterator>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet {
namespace {

// Members of a character class: Unicode's White_Space, and all others.
constexpr const char* kSpace =
    R"(\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr const char* kNotSpace =
    R"(\x{00}-\x{08}\x{0e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr const char* kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& path) : pattern_(pattern), path_(path) {}

  std::string run() {
    for (at_ = 0; at_ < pattern_.size(); ++at_) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_member(c);
      } else if (c == '[') {
        in_class_ = true;
        result_ += c;
        // A ']' that comes first, after '^' too, is a member in one dialect and an error or the end
        // in the other.
        if (next(1) == '^') result_ += pattern_[++at_];
        if (next(1) == ']') refuse("[]");
      } else {
        outside(c);
      }
    }
    return result_;
  }

 private:
  char next(std::size_t distance) const {
    return at_ + distance < pattern_.size() ? pattern_[at_ + distance] : '\0';
  }

  void class_member(char c) {
    if (c == '[') refuse("a class within a class");
    if (c == '&' && next(1) == '&') refuse("&&");
    if (c == ']') in_class_ = false;
    result_ += c;
  }

  void outside(char c) {
    if (c == '(' && next(1) == '?') {
      // (?: (?= (?! (?> (?<= (?<! (?i) (?i: (?-i) (?-i: mean the same.
      static constexpr std::string_view kKnown[] = {
          "(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i", "(?-i)", "(?-i:"};
      const std::string_view rest = pattern_.substr(at_);
      if (std::none_of(std::begin(kKnown), std::end(kKnown),
                       [&](std::string_view known) { return rest.starts_with(known); }) ||
          (rest.starts_with("(?i") && !rest.starts_with("(?i)") && !rest.starts_with("(?i:")))
        refuse(rest.substr(0, 4));
    }
    if (c == '}' && next(1) == '+') refuse("{…}+");
    if (c == '(' && next(1) == '*') refuse("(*");
    result_ += c;
  }

  void escape() {
    const char c = next(1);
    switch (c) {
      case 's':
        result_ += in_class_ ? kSpace : fmt::format("[{}]", kSpace);
        break;
      case 'S':
        result_ += in_class_ ? kNotSpace : fmt::format("[^{}]", kSpace);
        break;
      case 'w':
        result_ += in_class_ ? kWord : fmt::format("[{}]", kWord);
        break;
      case 'W':
        if (in_class_) refuse("\\W in a class");
        result_ += fmt::format("[^{}]", kWord);
        break;
      // The same in both: properties, decimal digits, control characters, code points.
      case 'p':
      case 'P':
      case 'd':
      case 'D':
      case 't':
      case 'r':
      case 'n':
      case 'f':
      case 'x':
        result_ += {'\\', c};
        copy_braces();
        break;
      case 'u':  // \uHHHH
        if (pattern_.size() < at_ + 6 ||
            !std::all_of(pattern_.begin() + at_ + 2, pattern_.begin() + at_ + 6, [](char digit) {
              return std::isxdigit(static_cast<unsigned char>(digit));
            }))
          refuse("\\u without four hexadecimal digits");
        result_ += fmt::format("\\x{{{}}}", pattern_.substr(at_ + 2, 4));
        at_ += 4;
        break;
      default:
        if (c == '\0' || std::isalnum(static_cast<unsigned char>(c)))
          refuse(
              {pattern_.data() + at_, at_ + 1 < pattern_.size() ? std::size_t{2} : std::size_t{1}});
        result_ += {'\\', c};
    }
    ++at_;
  }

  // The "{Lu}" after "\p", the "{1F600}" after "\x".
  void copy_braces() {
    if (next(2) != '{') return;
    const std::size_t end = std::min(pattern_.find('}', at_), pattern_.size() - 1);
    result_ += pattern_.substr(at_ + 2, end - at_ - 1);
    at_ = end - 1;
  }

  [[noreturn]] void refuse(std::string_view what) const {
    throw FormatError(path_, 0,
                      fmt::format("the split pattern {} has {} at character {}, which this program "
                                  "does not compute",
                                  printable(pattern_), printable(what), at_));
  }

  std::string_view pattern_;
  const std::string& path_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string result_;
};

constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

enum class GgufSplit { llama3, gpt2, qwen2, falcon, digits, gpt4o, tekken, llama_cpp_default };

struct GgufPre {
  std::string_view name;
  GgufSplit split;
  bool ignore_merges = false;
  bool add_bos = false;
};

// As llama.cpp reads these names.
constexpr GgufPre kGgufPres[] = {
    {"llama-bpe", GgufSplit::llama3, true, true},
    {"llama3", GgufSplit::llama3, true, true},
    {"llama-v3", GgufSplit::llama3, true, true},
    {"falcon3", GgufSplit::llama3, true, true},
    {"falcon_e", GgufSplit::llama3, true, true},
    {"falcon-h1", GgufSplit::llama3, true, true},
    {"pixtral", GgufSplit::llama3, true, true},
    {"lfm2", GgufSplit::llama3, true, true},
    {"dbrx", GgufSplit::llama3},
    {"smaug-bpe", GgufSplit::llama3},
    {"chatglm-bpe", GgufSplit::llama3},
    {"glm4", GgufSplit::llama3, true},
    {"gpt-2", GgufSplit::gpt2},
    {"phi-2", GgufSplit::gpt2},
    {"mpt", GgufSplit::gpt2},
    {"olmo", GgufSplit::gpt2},
    {"jais", GgufSplit::gpt2},
    {"trillion", GgufSplit::gpt2},
    {"qwen2", GgufSplit::qwen2},
    {"stablelm2", GgufSplit::qwen2},
    {"hunyuan", GgufSplit::qwen2},
    {"megrez", GgufSplit::qwen2},
    {"deepseek-r1-qwen", GgufSplit::qwen2},
    {"falcon", GgufSplit::falcon},
    {"starcoder", GgufSplit::digits},
    {"refact", GgufSplit::digits},
    {"command-r", GgufSplit::digits},
    {"smollm", GgufSplit::digits},
    {"codeshell", GgufSplit::digits},
    {"exaone", GgufSplit::digits},
    {"minerva-7b", GgufSplit::digits},
    {"gpt-4o", GgufSplit::gpt4o},
    {"llama4", GgufSplit::gpt4o},
    {"tekken", GgufSplit::tekken, true, true},
    {"default", GgufSplit::llama_cpp_default},
};

const GgufPre* find_pre(std::string_view name) {
  for (const GgufPre& pre : kGgufPres) {
    if (pre.name == name) return &pre;
  }
  return nullptr;
}

}  // namespace

const char* const kGpt2SplitPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char* const kLlama3SplitPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string to_pcre2(std::string_view pattern, const std::string& path) {
  return Translator(pattern, path).run();
}

std::optional<std::vector<std::string>> gguf_split_patterns(std::string_view name) {
  using Patterns = std::vector<std::string>;
  const GgufPre* pre = find_pre(name);
  if (pre == nullptr) return std::nullopt;
  switch (pre->split) {
    case GgufSplit::llama3:
      return Patterns{kLlama3SplitPattern};
    case GgufSplit::gpt2:
      return Patterns{kGpt2SplitPattern};
    case GgufSplit::qwen2:
      return Patterns{kQwen2};
    case GgufSplit::falcon:
      return Patterns{R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2SplitPattern, "[0-9][0-9][0-9]"};
    case GgufSplit::digits:
      return Patterns{R"(\p{N})", kGpt2SplitPattern};
    case GgufSplit::gpt4o:
      return Patterns{kGpt4o};
    case GgufSplit::tekken:
      return Patterns{kTekken};
    case GgufSplit::llama_cpp_default:
      break;
  }
  return Patterns{R"([\p{P}\$\+<=>\^~\|]+)", kGpt2SplitPattern, R"(\p{N}+)", "[0-9][0-9][0-9]"};
}

bool gguf_ignores_merges(std::string_view name) {
  const GgufPre* pre = find_pre(name);
  return pre != nullptr && pre->ignore_merges;
}

bool gguf_adds_bos(std::string_view name) {
  const GgufPre* pre = find_pre(name);
  return pre != nullptr && pre->add_bos;
}

}  // namespace bitnet
