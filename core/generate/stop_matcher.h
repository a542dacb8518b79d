// SPDX-License-Identifier: MIT
// Finds stop strings in a text that arrives piece by piece, and holds back what may become one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

class StopMatcher {
 public:
  // Throws UsageError for an empty stop string.
  explicit StopMatcher(std::vector<std::string> stops);

  // Appends the text that is now certain to precede any stop string to `out`. Returns true when a
  // stop string is complete: it and everything after it are never given out. Of several that end at
  // the same byte, the longest counts.
  bool feed(std::string_view text, std::string& out);

  // The text held back, at the end of all text.
  std::string finish();

 private:
  // Length of the longest suffix of held_ that a stop string could start with.
  std::size_t undecided() const;

  std::vector<std::string> stops_;
  std::string held_;
};

}  // namespace bitnet
