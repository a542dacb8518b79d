// SPDX-License-Identifier: MIT
#include "core/generate/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"

namespace bitnet {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_)
    if (stop.empty())
      throw UsageError("a stop string is empty: it would stop before the first token");
}

std::size_t StopMatcher::undecided() const {
  std::size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n)
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) longest = n;
  }
  return longest;
}

bool StopMatcher::feed(std::string_view text, std::string& out) {
  for (const char c : text) {
    held_ += c;
    std::size_t matched = 0;
    for (const std::string& stop : stops_)
      if (held_.ends_with(stop)) matched = std::max(matched, stop.size());
    if (matched > 0) {
      out.append(held_, 0, held_.size() - matched);
      held_.clear();
      return true;
    }
    const std::size_t certain = held_.size() - undecided();
    out.append(held_, 0, certain);
    held_.erase(0, certain);
  }
  return false;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace bitnet
