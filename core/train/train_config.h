// SPDX-License-Identifier: MIT
// How a model is trained. Keys are those of Hugging Face's Trainer where it has one. A step is one
// update of the weights.
#pragma once

#include <cstdint>
#include <string>

#include "core/backend/backend.h"
#include "core/base/field_visitor.h"

namespace bitnet {

struct TrainConfig {
  std::string init;  // model whose weights (and tokenizer) the run begins with; empty: random ones
  std::int64_t max_steps = 1000;
  std::int64_t per_device_train_batch_size = 8;  // sequences of one micro-batch
  std::int64_t sequence_length = 0;              // tokens of a sequence; 0: max_position_embeddings
  std::int64_t gradient_accumulation_steps = 1;  // micro-batches of one update
  std::string activation_dtype = "auto";  // auto | fp32 | bf16, beside the fp32 residual stream
  bool gradient_checkpointing = false;    // keep the blocks' inputs and compute the rest again
  std::int64_t seed = 1;                  // of initial weights, data order, dropout, samples

  double learning_rate = 1.5e-3;         // the peak
  double min_learning_rate_ratio = 0.1;  // of the peak, at the end: linear, cosine, wsd
  std::string lr_scheduler_type = "cosine";
  std::int64_t warmup_steps = 20;
  double decay_fraction = 0.3;               // wsd: the share of max_steps that decays
  double learning_rate_drop_at = 0.5;        // two_stage: share of max_steps
  double learning_rate_drop_ratio = 0.6667;  // two_stage: the second peak over the first
  double weight_decay_off_at = 0.5;          // two_stage: share of max_steps
  std::int64_t quant_warmup_steps = 0;       // steps from float (0) to full quantisation (1)
  std::string backward = "int8";  // int8 | fp32 | bf16: the gradients' products of a BitLinear

  double weight_decay = 0.1;  // of matrices only
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.95;
  double adam_epsilon = 1e-8;
  double max_grad_norm = 1.0;  // 0: no clipping

  std::int64_t logging_steps = 10;
  std::int64_t eval_steps = 200;         // 0: only at the end
  std::int64_t eval_max_bytes = 131072;  // of the validation split; 0: all
  std::int64_t save_steps = 200;         // 0: only at the end
  std::int64_t save_total_limit = 3;     // 0: keep all
  std::int64_t sample_steps = 200;       // 0: none
  std::string sample_prompt = "The ";
  std::int64_t sample_bytes = 200;  // tokens, where those are no bytes

  bool operator==(const TrainConfig&) const = default;

  void visit_fields(FieldVisitor& visitor);
  // Throws UsageError for values that do not fit together.
  void validate() const;

  GradientPrecision gradient_precision() const {
    return backward == "int8"   ? GradientPrecision::int8
           : backward == "bf16" ? GradientPrecision::bf16
                                : GradientPrecision::fp32;
  }
  std::int64_t sequences_per_step() const {
    return per_device_train_batch_size * gradient_accumulation_steps;
  }
};

}  // namespace bitnet
