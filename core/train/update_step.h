// SPDX-License-Identifier: MIT
// One update of the weights: micro-batches through the model and back, gradient norm, AdamW, new
// codes. Allocates everything when made and nothing afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/data/batch_loader.h"
#include "core/model/transformer.h"
#include "core/train/optimizer.h"
#include "core/train/run_config.h"

namespace bitnet {

// What an update keeps of its forward pass, and in what dtype. The latter throws UsageError where the
// backend does not have the one asked for.
Keep kept_activations(const TrainConfig& config);
DType activation_dtype(const Backend& backend, const TrainConfig& config);
// Throws UsageError where the backend does not have config.backward or config.activation_dtype.
void check_precisions(const Backend& backend, const TrainConfig& config);

class UpdateStep {
 public:
  // `model` holds latent weights. All references must outlive it.
  UpdateStep(const RunConfig& config, Transformer& model, Optimizer& optimizer,
             const BatchLoader& loader);

  struct Result {
    double loss = 0;           // mean over all tokens of the update, in nats
    double gradient_norm = 0;  // before clipping
  };

  // Update number `step`, from 0. The model's codes must be those of its weights and of
  // quant_amount_at(step); so they are afterwards for step + 1. When the loss or a gradient is not
  // finite, throws NonFiniteError saying which, and leaves weights and moments as they were.
  Result run(std::int64_t step);

  // Only the gradients of `step`, as run() computes them; returns the loss.
  double accumulate_gradients(std::int64_t step);

  // Throws NonFiniteError naming the first parameter that holds a weight that is not finite.
  void check_weights(std::int64_t steps_done) const;

  std::int64_t tokens_per_step() const { return tokens_per_step_; }
  std::int64_t activation_bytes() const { return activations_.bytes(); }

 private:
  // Forward and backward of what tokens_ and targets_ hold; the losses are in loss_ then. again:
  // with the operations of the last call.
  void issue_micro_batch(const DropoutState* dropout, bool again);
  // The gradients of all micro-batches, and their losses.
  void issue_gradients(std::int64_t step);
  double mean_loss(std::int64_t step) const;  // of loss_sums_
  const Parameter* first_non_finite_weights() const;
  [[noreturn]] void fail_loss(std::int64_t step, double loss) const;

  const RunConfig& config_;
  Transformer& model_;
  Optimizer& optimizer_;
  const BatchLoader& loader_;
  Activations activations_;
  std::int64_t tokens_per_step_;
  std::vector<std::int32_t> host_tokens_, host_targets_;  // [B, T]
  Tensor tokens_, targets_;                               // i32 [B, T], [B * T]
  Tensor loss_, losses_;                     // [B * T] of a micro-batch, [micro-batches, B * T]
  std::vector<ConstTensorView> loss_views_;  // of the rows of losses_
  std::vector<double> loss_sums_;            // of each of them
  std::unique_ptr<RecordedOperations> recorded_pass_;
  std::uint64_t last_model_ = 0;  // number of the model in the last step
};

}  // namespace bitnet
