// SPDX-License-Identifier: MIT
// A run's numbers as TensorBoard scalars.
#pragma once

#include "core/train/tensorboard.h"
#include "core/train/train_observer.h"

namespace bitnet {

class TensorBoardLog final : public TrainObserver {
 public:
  TensorBoardLog(const std::filesystem::path& folder, std::int64_t first_step)
      : writer_(folder, first_step) {}

  void on_train(const TrainMetrics& metrics) override;
  void on_eval(const EvalMetrics& metrics) override;

 private:
  TensorBoardWriter writer_;
};

}  // namespace bitnet
