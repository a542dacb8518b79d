// SPDX-License-Identifier: MIT
#include "core/base/random.h"

#include <cmath>

#include "tests/support/catch.h"

using namespace bitnet;
using Words = std::array<std::uint32_t, 4>;

TEST_CASE("Philox4x32-10 gives the known answers of its authors' library") {
  CHECK(philox4x32({0, 0, 0, 0}, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({~0u, ~0u, ~0u, ~0u}, ~0ull) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("every part of a random stream's key changes its numbers") {
  const RandomStream stream{1, RandomPurpose::test, 2};
  const Words block = stream.block(3);
  CHECK(block == stream.block(3));
  CHECK(block != stream.block(4));
  CHECK(block != stream.block(3 + (std::uint64_t{1} << 32)));
  CHECK(block != RandomStream{2, RandomPurpose::test, 2}.block(3));
  CHECK(block != RandomStream{1, RandomPurpose::sampling, 2}.block(3));
  CHECK(block != RandomStream{1, RandomPurpose::test, 3}.block(3));
}

TEST_CASE("random numbers keep to their range and moments") {
  const RandomStream stream{7, RandomPurpose::test, 0};
  constexpr int kCount = 40000;
  double sum = 0, squares = 0;
  bool in_range = true;
  for (int i = 0; i < kCount; ++i) {
    const auto index = static_cast<std::uint64_t>(i);
    const double uniform = stream.uniform(index);
    in_range = in_range && uniform >= 0 && uniform < 1 && stream.below(index, 7) < 7 &&
               stream.below(index, 1) == 0;
    const double normal = stream.normal(index);
    sum += normal;
    squares += normal * normal;
  }
  CHECK(in_range);
  // Five standard errors: 1/sqrt(n) for the mean, sqrt(2/n) for the variance.
  CHECK(std::abs(sum / kCount) <= 5 / std::sqrt(kCount));
  CHECK(std::abs(squares / kCount - 1) <= 5 * std::sqrt(2.0 / kCount));
}
