// SPDX-License-Identifier: MIT
// Rows of fp16 to fp32 and back. Included by each float_<isa>.cpp after lanes_math.h.
#pragma once

#include <cstdint>

namespace bitnet::cpu {
namespace {

void widen(const std::uint16_t* x, float* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, load(x + i));
  if (i == n) return;
  std::uint16_t rest[16] = {};
  for (std::int64_t j = i; j < n; ++j) rest[j - i] = x[j];
  store(y + i, First{static_cast<int>(n - i)}, load(rest));
}

void narrow(const float* x, std::uint16_t* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, load(x + i));
  if (i == n) return;
  std::uint16_t rest[16];
  store(rest, load(x + i, First{static_cast<int>(n - i)}, zero()));
  for (std::int64_t j = i; j < n; ++j) y[j] = rest[j - i];
}

}  // namespace
}  // namespace bitnet::cpu
