// SPDX-License-Identifier: MIT
// What the tensors of the loss and of an update must be on every backend.
#pragma once

#include "core/backend/backend.h"

namespace bitnet {

inline void check_cross_entropy(ConstTensorView logits, ConstTensorView targets,
                                ConstTensorView loss, ConstTensorView dlogits) {
  BITNET_CHECK(logits.shape().rank() == 2 && targets.elements() == logits.dim(0) &&
                   loss.elements() == logits.dim(0),
               "logits {}, {} targets, {} losses: expected [rows, V], rows, rows",
               logits.shape().to_string(), targets.elements(), loss.elements());
  BITNET_CHECK(!dlogits || dlogits.shape() == logits.shape(),
               "dlogits is {}, expected the shape of logits, {}", dlogits.shape().to_string(),
               logits.shape().to_string());
}

inline void check_adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) {
  BITNET_CHECK(step.step >= 1, "adamw at step {}, expected steps from 1", step.step);
  for (const AdamWParameter& p : parameters) {
    const std::int64_t n = p.parameter.elements();
    BITNET_CHECK(p.gradient.elements() == n && p.m.elements() == n && p.v.elements() == n,
                 "adamw of a parameter {} got gradient {}, m {}, v {}: expected equal sizes",
                 p.parameter.shape().to_string(), p.gradient.shape().to_string(),
                 p.m.shape().to_string(), p.v.shape().to_string());
  }
}

inline void check_sums(std::span<const ConstTensorView> x, std::span<const ConstTensorView> squared,
                       std::span<const double> sums) {
  BITNET_CHECK(sums.size() == x.size() + squared.size(), "{} sums of {} tensors", sums.size(),
               x.size() + squared.size());
}

}  // namespace bitnet
