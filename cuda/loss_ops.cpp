// SPDX-License-Identifier: MIT
// Cross-entropy and AdamW.
#include "core/backend/adamw_factors.h"
#include "cuda/adamw.h"
#include "cuda/cross_entropy.h"
#include "cuda/cuda_backend_impl.h"

namespace bitnet::cuda {

// The targets are in device memory: one outside [-1, V) is not refused here, but its row's loss and
// gradient are NaN.
void CudaBackend::cross_entropy(ConstTensorView logits, ConstTensorView targets, TensorView loss,
                                float scale, TensorView dlogits) {
  BITNET_CHECK(logits.shape().rank() == 2 && targets.elements() == logits.dim(0) &&
                   loss.elements() == logits.dim(0),
               "logits {}, {} targets, {} losses: expected [rows, V], rows, rows",
               logits.shape().to_string(), targets.elements(), loss.elements());
  BITNET_CHECK(!dlogits || dlogits.shape() == logits.shape(),
               "dlogits is {}, expected the shape of logits, {}", dlogits.shape().to_string(),
               logits.shape().to_string());
  const CrossEntropy op{.logits = logits.as<float>().data(),
                        .targets = targets.as<std::int32_t>().data(),
                        .loss = loss.as<float>().data(),
                        .scale = scale,
                        .dlogits = dlogits.as<float>().data(),
                        .rows = static_cast<int>(logits.dim(0)),
                        .vocabulary = static_cast<int>(logits.dim(1))};
  if (op.rows > 0) check(cuda::cross_entropy(op, stream_), "cross_entropy");
}

void CudaBackend::adamw(const AdamWStep& step, ConstTensorView gradient, TensorView parameter,
                        TensorView m, TensorView v) {
  const std::int64_t n = parameter.elements();
  BITNET_CHECK(gradient.elements() == n && m.elements() == n && v.elements() == n,
               "adamw of a parameter {} got gradient {}, m {}, v {}: expected equal sizes",
               parameter.shape().to_string(), gradient.shape().to_string(), m.shape().to_string(),
               v.shape().to_string());
  BITNET_CHECK(step.step >= 1, "adamw at step {}, expected steps from 1", step.step);
  const AdamW op{.factors = adamw_factors<AdamWFactors>(step),
                 .gradient = gradient.as<float>().data(),
                 .parameter = parameter.as<float>().data(),
                 .m = m.as<float>().data(),
                 .v = v.as<float>().data(),
                 .count = n};
  if (n > 0) check(cuda::adamw(op, stream_), "adamw");
}

}  // namespace bitnet::cuda
