// SPDX-License-Identifier: MIT
// The codes of the quantised projections after an update: shares of -1, 0, +1, flips, scales.
#pragma once

#include <vector>

#include "core/model/parameters.h"
#include "core/train/train_observer.h"

namespace bitnet {

// One entry for each quantised projection; none in a float model. The flips are those of the last
// Transformer::refresh_quantized().
std::vector<ProjectionMetrics> measure_projections(Backend& backend, const Parameters& parameters);

}  // namespace bitnet
