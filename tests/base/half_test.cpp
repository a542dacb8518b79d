// SPDX-License-Identifier: MIT
#include "core/base/half.h"

#include <cmath>

#include "tests/support/catch.h"

using namespace bitnet;

TEST_CASE("every f16 value survives the way to fp32 and back") {
  bool same = true;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = from_f16(half);
    same =
        same && (std::isnan(value) ? std::isnan(from_f16(to_f16(value))) : to_f16(value) == half);
  }
  CHECK(same);
  CHECK(from_f16(0x3c00) == 1.0f);
  CHECK(from_f16(0xc000) == -2.0f);
  CHECK(from_f16(0x0001) == 0x1p-24f);
  CHECK(from_f16(0x03ff) == 1023 * 0x1p-24f);
  CHECK(from_f16(0x7bff) == 65504.0f);
  CHECK(from_f16(0x7c00) == INFINITY);
  CHECK(std::signbit(from_f16(0x8000)));
}

TEST_CASE("f16 rounds to nearest, ties to even") {
  bool nearest = true;
  for (std::uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = from_f16(static_cast<std::uint16_t>(bits)),
                high = from_f16(static_cast<std::uint16_t>(bits + 1)), middle = (low + high) / 2;
    nearest = nearest && to_f16(std::nextafter(middle, 0.0f)) == bits &&
              to_f16(std::nextafter(middle, INFINITY)) == bits + 1 &&
              to_f16(middle) == (bits % 2 == 0 ? bits : bits + 1) &&
              to_f16(-middle) == (0x8000 | (bits % 2 == 0 ? bits : bits + 1));
  }
  CHECK(nearest);
  CHECK(to_f16(65519.99f) == 0x7bff);
  CHECK(to_f16(65520.0f) == 0x7c00);
  CHECK(to_f16(1e30f) == 0x7c00);
  CHECK(to_f16(-INFINITY) == 0xfc00);
}

TEST_CASE("bf16 is the upper half of an fp32, rounded") {
  CHECK(from_bf16(0x3f80) == 1.0f);
  CHECK(to_bf16(1.0f) == 0x3f80);
  CHECK(to_bf16(std::bit_cast<float>(0x3f808000u)) == 0x3f80);  // a tie, to even
  CHECK(to_bf16(std::bit_cast<float>(0x3f818000u)) == 0x3f82);
  CHECK(to_bf16(std::bit_cast<float>(0x3f808001u)) == 0x3f81);
  CHECK(std::isnan(from_bf16(to_bf16(NAN))));
  CHECK(to_bf16(INFINITY) == 0x7f80);
}
