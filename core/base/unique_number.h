// SPDX-License-Identifier: MIT
// Numbers that this process never gives twice: unlike an address, they still tell two objects apart
// when one has taken the other's place.
#pragma once

#include <atomic>
#include <cstdint>

namespace bitnet {

inline std::uint64_t unique_number() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace bitnet
