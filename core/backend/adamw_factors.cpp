// SPDX-License-Identifier: MIT
#include "core/backend/adamw_factors.h"

#include <cmath>

#include "core/backend/backend.h"

namespace bitnet {

AdamWFactors adamw_factors(const AdamWStep& s) {
  const double bias1 = 1.0 - std::pow(s.beta1, static_cast<double>(s.step));
  const double bias2 = 1.0 - std::pow(s.beta2, static_cast<double>(s.step));
  return {.grad_scale = static_cast<float>(s.grad_scale),
          .decay = static_cast<float>(1.0 - s.learning_rate * s.weight_decay),
          .one_minus_beta1 = static_cast<float>(1.0 - s.beta1),
          .beta2 = static_cast<float>(s.beta2),
          .one_minus_beta2 = static_cast<float>(1.0 - s.beta2),
          .inv_sqrt_bias2 = static_cast<float>(1.0 / std::sqrt(bias2)),
          .eps = static_cast<float>(s.eps),
          .step_size = static_cast<float>(s.learning_rate / bias1)};
}

}  // namespace bitnet
