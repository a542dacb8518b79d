// SPDX-License-Identifier: MIT
#include "core/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/error.h"

namespace bitnet {
namespace {

// Whether `step` is at or past the given share of the run.
bool reached(const TrainConfig& config, std::int64_t step, double share) {
  return static_cast<double>(step) >= share * static_cast<double>(config.max_steps);
}

// Of the last decay_fraction of the run, the share that is over.
double decayed_share(const TrainConfig& config, std::int64_t step) {
  const double steps = static_cast<double>(config.max_steps);
  const double first = steps * (1 - config.decay_fraction);
  return std::max(0.0, static_cast<double>(step) - first) / std::max(1.0, steps - first);
}

}  // namespace

double learning_rate_at(const TrainConfig& config, std::int64_t step) {
  const double peak = config.learning_rate, r = config.min_learning_rate_ratio;
  if (step < config.warmup_steps)
    return peak * static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps);

  const auto decay_steps = std::max<std::int64_t>(1, config.max_steps - config.warmup_steps);
  const double t = std::min(
      1.0, static_cast<double>(step - config.warmup_steps) / static_cast<double>(decay_steps));
  const std::string& type = config.lr_scheduler_type;
  if (type == "constant") return peak;
  if (type == "linear") return peak * (r + (1 - r) * (1 - t));
  if (type == "cosine") return peak * (r + (1 - r) * 0.5 * (1 + std::cos(std::numbers::pi * t)));
  if (type == "wsd") return peak * (1 - (1 - r) * std::min(1.0, decayed_share(config, step)));
  BITNET_CHECK(type == "two_stage", "unknown schedule '{}'", type);
  const bool dropped = reached(config, step, config.learning_rate_drop_at);
  return peak * (dropped ? config.learning_rate_drop_ratio : 1.0) * (1 - t);
}

double weight_decay_at(const TrainConfig& config, std::int64_t step) {
  const bool off =
      config.lr_scheduler_type == "two_stage" && reached(config, step, config.weight_decay_off_at);
  return off ? 0.0 : config.weight_decay;
}

double quant_amount_at(const TrainConfig& config, std::int64_t step) {
  if (step >= config.quant_warmup_steps) return 1.0;
  return static_cast<double>(step) / static_cast<double>(config.quant_warmup_steps);
}

bool same_schedule(const TrainConfig& a, const TrainConfig& b, std::int64_t steps) {
  for (std::int64_t step = 0; step < steps; ++step) {
    if (learning_rate_at(a, step) != learning_rate_at(b, step) ||
        weight_decay_at(a, step) != weight_decay_at(b, step) ||
        quant_amount_at(a, step) != quant_amount_at(b, step))
      return false;
  }
  return true;
}

}  // namespace bitnet
