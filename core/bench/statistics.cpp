// SPDX-License-Identifier: MIT
#include "core/bench/statistics.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"

namespace bitnet {

Statistics summarize(std::span<const double> samples) {
  BITNET_CHECK(!samples.empty(), "no samples to summarize");
  std::vector<double> sorted(samples.begin(), samples.end());
  std::sort(sorted.begin(), sorted.end());
  const std::size_t count = sorted.size(), upper = count / 2, lower = (count - 1) / 2;
  return {.median = (sorted[lower] + sorted[upper]) / 2,
          .min = sorted.front(),
          .max = sorted.back(),
          .repeats = static_cast<int>(count)};
}

}  // namespace bitnet
