// SPDX-License-Identifier: MIT
#include "core/bench/statistics.h"

#include <vector>

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

TEST_CASE("the median of an odd number of samples is the one in the middle") {
  const Statistics s = summarize(std::vector<double>{5, 1, 3});
  CHECK(s.median == 3);
  CHECK(s.min == 1);
  CHECK(s.max == 5);
  CHECK(s.repeats == 3);
}

TEST_CASE("the median of an even number of samples is the mean of the two in the middle") {
  CHECK(summarize(std::vector<double>{4, 1, 3, 100}).median == 3.5);
  CHECK(summarize(std::vector<double>{2}).median == 2);
}

TEST_CASE("no samples have no statistics") { CHECK_THROWS_AS(summarize({}), ContractError); }

}  // namespace
}  // namespace bitnet
