// SPDX-License-Identifier: MIT
// What ThreadSanitizer need not see: it makes each access to memory ten to sixty times as slow.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <vector>

// On a function over plain pointers that computes what a test expects, from what the test has made.
// (What the function calls is watched as ever.)
#define BITNET_UNWATCHED __attribute__((no_sanitize("thread")))

namespace bitnet::test {

// The teams that a test runs with: all of `sizes`, under ThreadSanitizer the largest alone. A single
// thread has nothing to show there, nor has a smaller team what a larger one does not.
inline std::vector<int> team_sizes(std::initializer_list<int> sizes) {
#ifdef BITNET_THREAD_SANITIZER
  return {std::max(sizes)};
#else
  return sizes;
#endif
}

}  // namespace bitnet::test
