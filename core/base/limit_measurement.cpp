// SPDX-License-Identifier: MIT
#include "core/base/limit_measurement.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace bitnet {
namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

void keep_better(LimitMeasurement& best, LimitMeasurement candidate) {
  if (best.per_second.empty() || median(candidate.per_second) > median(best.per_second))
    best = std::move(candidate);
}

}  // namespace bitnet
