// SPDX-License-Identifier: MIT
#include "core/tokenizer/word_splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/tokenizer/split_pattern.h"
#include "core/tokenizer/utf8.h"

namespace bitnet {
namespace {

// A hostile pattern must end some day. Backing out of a run of a million spaces takes a million
// steps, which is fine.
constexpr std::uint32_t kMaxSteps = 50'000'000;
constexpr std::uint32_t kMaxHeapKiB = 256 * 1024;
constexpr std::size_t kMaxPatternBytes = 65536;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

template <auto free>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    free(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;

// Is there a '^' that neither begins a character class nor is escaped? (PCRE2 counts it as no
// lookbehind.) A member of a class is taken for one too, which costs memory but nothing else.
bool has_line_start(std::string_view pattern) {
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '^') return true;
    if (pattern[i] == '\\' || pattern.substr(i).starts_with("[^")) ++i;
  }
  return false;
}

template <typename Pointer>
Pointer check_memory(Pointer pointer) {
  if (pointer == nullptr) throw std::bad_alloc();
  return pointer;
}

}  // namespace

class SplitRegex {
 public:
  SplitRegex(const std::string& pattern, const std::string& path) : pattern_(pattern) {
    if (pattern.size() > kMaxPatternBytes)
      throw FormatError(path, 0,
                        fmt::format("a split pattern has {} bytes, expected at most {}",
                                    pattern.size(), kMaxPatternBytes));
    const std::string translated = to_pcre2(pattern, path);
    const CompileContext compile(check_memory(pcre2_compile_context_create(nullptr)));
    pcre2_set_newline(compile.get(), PCRE2_NEWLINE_LF);
    int error = 0;
    PCRE2_SIZE place = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                              &error, &place, compile.get()));
    if (code_ == nullptr)
      throw FormatError(path, 0,
                        fmt::format("the split pattern {} is not a regular expression: {}",
                                    printable(pattern), pcre2_message(error)));
    std::uint32_t lookbehind = 0;
    pcre2_pattern_info(code_.get(), PCRE2_INFO_MAXLOOKBEHIND, &lookbehind);
    looks_back_ = lookbehind > 0 || has_line_start(translated);
    // Where it fails (a processor without a code generator), matches are interpreted.
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
    context_.reset(check_memory(pcre2_match_context_create(nullptr)));
    pcre2_set_match_limit(context_.get(), kMaxSteps);
    pcre2_set_heap_limit(context_.get(), kMaxHeapKiB);
  }

  // Whether words may depend on the text before them.
  bool looks_back() const { return looks_back_; }

  // Appends the words of `text`. Unless `complete`, only those that do not depend on what follows.
  // Returns the bytes in them.
  std::size_t cut(std::string_view text, bool complete,
                  std::vector<std::string_view>& words) const {
    const MatchData match(check_memory(pcre2_match_data_create(1, nullptr)));
    std::size_t done = 0;  // bytes in words
    const auto end_word = [&](std::size_t end) {
      if (end > done) words.push_back(text.substr(done, end - done));
      done = end;
    };
    for (std::size_t from = 0; from < text.size();) {
      // PCRE2_PARTIAL_HARD: whatever looks at the end of an incomplete text is no match yet.
      const int result = run(text, from, complete ? 0 : PCRE2_PARTIAL_HARD, match.get());
      if (result == PCRE2_ERROR_PARTIAL) return done;
      if (result == PCRE2_ERROR_NOMATCH) break;
      const PCRE2_SIZE* place = pcre2_get_ovector_pointer(match.get());
      const std::size_t begin = place[0], end = place[1];
      end_word(begin);
      end_word(end);
      // A match of nothing divides what lies around it, and the search goes on behind the next
      // character.
      from = end > begin ? end : end + std::max<std::size_t>(utf8_length(text.substr(end)), 1);
    }
    if (complete) end_word(text.size());
    return done;
  }

 private:
  int run(std::string_view text, std::size_t from, std::uint32_t options,
          pcre2_match_data* match) const {
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    options |= PCRE2_NO_UTF_CHECK;
    int result =
        pcre2_match(code_.get(), subject, text.size(), from, options, match, context_.get());
    if (result == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter takes what it needs from the heap
      result = pcre2_match(code_.get(), subject, text.size(), from, options | PCRE2_NO_JIT, match,
                           context_.get());
    if (result >= 0 || result == PCRE2_ERROR_NOMATCH || result == PCRE2_ERROR_PARTIAL)
      return result;
    throw Error(
        fmt::format("the split pattern {} cannot be applied to this text, at byte {} of {}: {}",
                    printable(pattern_), from, text.size(), pcre2_message(result)));
  }

  std::string pattern_;
  bool looks_back_ = false;
  Code code_;
  MatchContext context_;
};

WordSplitter::WordSplitter(std::span<const std::string> patterns, const std::string& path) {
  for (const std::string& pattern : patterns)
    regexes_.push_back(std::make_unique<SplitRegex>(pattern, path));
}
WordSplitter::~WordSplitter() = default;
WordSplitter::WordSplitter(WordSplitter&&) noexcept = default;

void WordSplitter::split(std::string_view text, std::vector<std::string_view>& words) const {
  cut(text, true, words);
}

std::size_t WordSplitter::split_prefix(std::string_view text,
                                       std::vector<std::string_view>& words) const {
  // Those after the first see whole words either way.
  if (regexes_.empty() || regexes_[0]->looks_back()) return 0;
  return cut(text, false, words);
}

std::size_t WordSplitter::cut(std::string_view text, bool complete,
                              std::vector<std::string_view>& words) const {
  if (text.empty()) return 0;
  if (regexes_.empty()) {
    words.push_back(text);
    return text.size();
  }
  if (regexes_.size() == 1) return regexes_[0]->cut(text, complete, words);
  std::vector<std::string_view> outer, inner;
  const std::size_t length = regexes_[0]->cut(text, complete, outer);
  for (std::size_t i = 1; i < regexes_.size(); ++i) {
    inner.clear();
    for (const std::string_view word : outer) regexes_[i]->cut(word, true, inner);
    outer.swap(inner);
  }
  words.insert(words.end(), outer.begin(), outer.end());
  return length;
}

}  // namespace bitnet
