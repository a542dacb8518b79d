// SPDX-License-Identifier: MIT
// The regular expressions that cut a text into words before byte pairs are merged. Files give them
// in Oniguruma's dialect (Ruby's syntax, Unicode), which Hugging Face uses; PCRE2 executes them. The two differ in
//   \s \S   PCRE2 counts U+180E, which has not been white space since Unicode 6.3
//   \w \W   PCRE2 10.42: letters, digits, "_"; Oniguruma: alphabetic, marks, decimals, connectors
//   ^ $     Oniguruma: of every line
//   \h \H   Oniguruma: hexadecimal digits; PCRE2: horizontal space
//   a{2,3}+ Oniguruma: (a{2,3})+; PCRE2: possessive
//   \b \K \R \X (?m) [a&&b] [[a]] and other things of one dialect only
// The first three are translated; of the others no known tokenizer has any, and they are refused.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bitnet {

// GPT-2's, and that of pre_tokenizer ByteLevel with use_regex.
extern const char* const kGpt2SplitPattern;
extern const char* const kLlama3SplitPattern;

// The same in PCRE2's dialect (PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE). Throws FormatError, with
// `path`, for what would mean something else there.
std::string to_pcre2(std::string_view pattern, const std::string& path);

}  // namespace bitnet
