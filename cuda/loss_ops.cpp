// SPDX-License-Identifier: MIT
// Cross-entropy and AdamW.
#include "core/backend/adamw_factors.h"
#include "core/backend/loss_checks.h"
#include "cuda/adamw.h"
#include "cuda/cross_entropy.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/tensor_batch.h"

namespace bitnet::cuda {

// The targets are in device memory: one outside [-1, V) is not refused here, but its row's loss and
// gradient are NaN.
void CudaBackend::cross_entropy(ConstTensorView logits, ConstTensorView targets, TensorView loss,
                                float scale, TensorView dlogits) {
  check_cross_entropy(logits, targets, loss, dlogits);
  const CrossEntropy op{.logits = logits.as<float>().data(),
                        .targets = targets.as<std::int32_t>().data(),
                        .loss = loss.as<float>().data(),
                        .scale = scale,
                        .dlogits = dlogits.as<float>().data(),
                        .rows = static_cast<int>(logits.dim(0)),
                        .vocabulary = static_cast<int>(logits.dim(1))};
  if (op.rows > 0) check(cuda::cross_entropy(op, stream_), "cross_entropy");
}

void CudaBackend::adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) {
  check_adamw(step, parameters);
  const AdamWFactors factors = adamw_factors(step);
  for_each_batch(parameters, [&](std::span<const AdamWParameter> batch) {
    TensorBatch<AdamW> ops;
    for (const AdamWParameter& p : batch) {
      ops.push_back({.gradient = p.gradient.as<float>().data(),
                     .parameter = p.parameter.as<float>().data(),
                     .m = p.m.as<float>().data(),
                     .v = p.v.as<float>().data(),
                     .count = p.parameter.elements(),
                     .decays = p.decays});
    }
    check(cuda::adamw(factors, ops.all(), stream_), "adamw");
  });
}

}  // namespace bitnet::cuda
