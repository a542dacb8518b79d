// SPDX-License-Identifier: MIT
// What is said of a measurement that was repeated.
#pragma once

#include <span>

namespace bitnet {

struct Statistics {
  double median = 0, min = 0, max = 0;
  int repeats = 0;
};

// The median of an even number of samples is the mean of the two in the middle. Throws
// ContractError when there is none.
Statistics summarize(std::span<const double> samples);

}  // namespace bitnet
