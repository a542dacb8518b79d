// SPDX-License-Identifier: MIT
#include "core/base/limit_measurement.h"

#include "tests/support/catch.h"

namespace bitnet {
namespace {

TEST_CASE("of several kernels the one with the largest median is kept") {
  LimitMeasurement best;
  keep_better(best, {"first", {1, 2, 9}});
  CHECK(best.kernel == "first");
  keep_better(best, {"one lucky repeat", {1, 1, 100}});
  CHECK(best.kernel == "first");
  keep_better(best, {"faster", {3, 3, 3}});
  CHECK(best.kernel == "faster");
  CHECK(best.per_second.size() == 3);
}

}  // namespace
}  // namespace bitnet
