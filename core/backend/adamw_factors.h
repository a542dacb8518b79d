// SPDX-License-Identifier: MIT
// What an update by AdamW multiplies with, the same on every device. The kernels read it, so that
// it depends on nothing.
#pragma once

namespace bitnet {

struct AdamWStep;

// Computed in double and rounded once.
struct AdamWFactors {
  float grad_scale;
  float decay;  // 1 - lr * weight_decay
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float inv_sqrt_bias2;  // 1 / sqrt(1 - β2^t)
  float eps;
  float step_size;  // lr / (1 - β1^t)
};

AdamWFactors adamw_factors(const AdamWStep& step);

}  // namespace bitnet
