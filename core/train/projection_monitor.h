// SPDX-License-Identifier: MIT
// Watches the codes of the quantised projections across one update: shares of -1, 0, +1, flips,
// scales.
#pragma once

#include <vector>

#include "core/model/transformer.h"
#include "core/train/train_observer.h"

namespace bitnet {

class ProjectionMonitor {
 public:
  // Reserves a copy of the model's codes. `model` must outlive it; nothing to watch in a float
  // model.
  explicit ProjectionMonitor(Transformer& model);

  // Remembers the codes before an update.
  void remember();
  // The codes now, compared with those remembered.
  std::vector<ProjectionMetrics> measure() const;

 private:
  Transformer& model_;
  std::vector<Tensor> earlier_;  // u8, one for each quantised projection
};

}  // namespace bitnet
