// SPDX-License-Identifier: MIT
// What changes over a run, as pure functions of the step (from 0): learning rate, weight decay,
// amount of quantisation.
#pragma once

#include "core/train/train_config.h"

namespace bitnet {

// Warm-up: peak * (step + 1) / warmup_steps while step < warmup_steps. Then, with t = (step -
// warmup) / (max_steps - warmup) and r = min_learning_rate_ratio, peak times
//   constant   1
//   linear     r + (1 - r) (1 - t)
//   cosine     r + (1 - r) (1 + cos πt) / 2
//   wsd        1, and over the last decay_fraction of max_steps linearly down to r
//   two_stage  1 - t; from learning_rate_drop_at of max_steps on, times learning_rate_drop_ratio
//   (training FAQ, §1)
double learning_rate_at(const TrainConfig& config, std::int64_t step);

// weight_decay; with two_stage 0 from weight_decay_off_at of max_steps on.
double weight_decay_at(const TrainConfig& config, std::int64_t step);

// The λ of x + λ (q(x) - x): step / quant_warmup_steps, at most 1.
double quant_amount_at(const TrainConfig& config, std::int64_t step);

// Whether all three are the same in the first `steps` steps.
bool same_schedule(const TrainConfig& a, const TrainConfig& b, std::int64_t steps);

}  // namespace bitnet
