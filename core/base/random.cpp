// SPDX-License-Identifier: MIT
#include "core/base/random.h"

#include <cmath>
#include <numbers>

namespace bitnet {
namespace {

__extension__ using Uint128 = unsigned __int128;

std::uint64_t join(std::uint32_t low, std::uint32_t high) {
  return std::uint64_t{high} << 32 | low;
}

}  // namespace

double RandomStream::uniform(std::uint64_t index) const {
  const auto word = block(index);
  return static_cast<double>(join(word[0], word[1]) >> 11) * 0x1.0p-53;
}

std::uint64_t RandomStream::below(std::uint64_t index, std::uint64_t bound) const {
  const auto word = block(index);
  return static_cast<std::uint64_t>((static_cast<Uint128>(join(word[0], word[1])) * bound) >> 64);
}

double RandomStream::normal(std::uint64_t index) const {
  const auto word = block(index);
  // 1 - u is in (0, 1], so the logarithm is finite.
  const double u = static_cast<double>(join(word[0], word[1]) >> 11) * 0x1.0p-53;
  const double v = static_cast<double>(join(word[2], word[3]) >> 11) * 0x1.0p-53;
  return std::sqrt(-2.0 * std::log(1.0 - u)) * std::cos(2.0 * std::numbers::pi * v);
}

}  // namespace bitnet
