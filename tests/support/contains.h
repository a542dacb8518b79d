// SPDX-License-Identifier: MIT
// Checks of messages.
#pragma once

#include <string>

#include "tests/support/catch.h"

namespace bitnet::test {

inline void contains(const std::string& text, const std::string& part) {
  CAPTURE(text, part);
  CHECK(text.find(part) != std::string::npos);
}

}  // namespace bitnet::test
