// SPDX-License-Identifier: MIT
// Cuts a text into the words within which byte pairs are merged, as Hugging Face's Split with
// behavior "Isolated" does: every match of a regular expression is a word, and so is what lies between two matches.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

class SplitRegex;

// Immutable: any number of threads may use one.
class WordSplitter {
 public:
  // Patterns in Oniguruma's dialect (split_pattern.h); each cuts the words of the one before. Throws
  // FormatError, with `path`, for one that cannot be compiled.
  WordSplitter(std::span<const std::string> patterns, const std::string& path);
  ~WordSplitter();
  WordSplitter(WordSplitter&&) noexcept;

  bool empty() const { return regexes_.empty(); }  // a text is one word

  // Appends the words of `text`, which must be valid UTF-8, in order; none is empty. Throws Error
  // where a match takes too many steps.
  void split(std::string_view text, std::vector<std::string_view>& words) const;

  // The same, but only those words that stay the same whatever follows `text`: split() of the rest,
  // with what follows, gives the others. Returns the bytes in them; 0 where a pattern looks at what
  // lies before a word.
  std::size_t split_prefix(std::string_view text, std::vector<std::string_view>& words) const;

 private:
  std::size_t cut(std::string_view text, bool complete, std::vector<std::string_view>& words) const;

  std::vector<std::unique_ptr<const SplitRegex>> regexes_;
};

}  // namespace bitnet
