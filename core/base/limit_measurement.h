// SPDX-License-Identifier: MIT
// How fast a kernel that does nothing else comes to what a machine or a device gives at most.
#pragma once

#include <string>
#include <vector>

namespace bitnet {

// Of the kernel with the largest median.
struct LimitMeasurement {
  std::string kernel;
  std::vector<double> per_second;  // one a repeat: bytes, or operations
};

// best = candidate, if its median is larger or best is empty.
void keep_better(LimitMeasurement& best, LimitMeasurement candidate);

}  // namespace bitnet
