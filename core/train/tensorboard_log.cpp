// SPDX-License-Identifier: MIT
#include "core/train/tensorboard_log.h"

namespace bitnet {

void TensorBoardLog::on_train(const TrainMetrics& m) {
  std::vector<Scalar> scalars = {
      {"train/loss", m.loss},
      {"train/bits_per_byte", m.bits_per_byte},
      {"train/learning_rate", m.learning_rate},
      {"train/weight_decay", m.weight_decay},
      {"train/grad_norm", m.gradient_norm},
      {"train/quant_amount", m.quant_amount},
      {"train/tokens_per_second", m.tokens_per_second},
  };
  for (const ProjectionMetrics& p : m.projections) {
    scalars.push_back({"zero_share/" + p.name, p.zero});
    scalars.push_back({"flips/" + p.name, static_cast<double>(p.flips)});
    scalars.push_back({"weight_scale/" + p.name, p.weight_scale});
  }
  writer_.write(m.step, scalars);
}

void TensorBoardLog::on_eval(const EvalMetrics& m) {
  const Scalar scalars[] = {{"eval/loss", m.loss}, {"eval/bits_per_byte", m.bits_per_byte}};
  writer_.write(m.step, scalars);
}

}  // namespace bitnet
