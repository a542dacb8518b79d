// SPDX-License-Identifier: MIT
#include "core/train/train_config.h"

#include "core/base/error.h"
#include "core/data/batch_loader.h"

namespace bitnet {

void TrainConfig::visit_fields(FieldVisitor& visitor) {
  constexpr std::int64_t kMaxSteps = std::int64_t{1}
                                     << 31;  // a step is 32 bits of a random counter
  constexpr std::int64_t kMaxCount = std::int64_t{1} << 40;
  visitor.field("init", init, {},
                "model whose weights and tokenizer the run begins with; empty: random weights");
  visitor.field("max_steps", max_steps, 1, kMaxSteps, "updates of the weights");
  visitor.field("per_device_train_batch_size", per_device_train_batch_size, 1,
                BatchPlan::kMaxWindows, "sequences of one micro-batch");
  visitor.field("sequence_length", sequence_length, 0, 1 << 20,
                "tokens (bytes, without a tokenizer) of a sequence; 0: max_position_embeddings");
  visitor.field("gradient_accumulation_steps", gradient_accumulation_steps, 1,
                BatchPlan::kMaxWindows, "micro-batches of one update");
  visitor.field(
      "activation_dtype", activation_dtype, {"auto", "fp32", "bf16"},
      "of the activations and their gradients, beside the fp32 residual stream; bf16: on a "
      "GPU only; auto: bf16 on a GPU, fp32 else and during a quantisation warm-up");
  visitor.field(
      "gradient_checkpointing", gradient_checkpointing,
      "less memory for a third more time: keep the inputs of the blocks alone, and compute "
      "the rest again in the backward pass; changes no result");
  visitor.field("seed", seed, 0, std::numeric_limits<std::int64_t>::max(),
                "of initial weights, data order, dropout and samples");

  visitor.field("learning_rate", learning_rate, 0, 1e3, "the peak");
  visitor.field("min_learning_rate_ratio", min_learning_rate_ratio, 0, 1,
                "end over peak, for linear, cosine and wsd");
  visitor.field("lr_scheduler_type", lr_scheduler_type,
                {"constant", "linear", "cosine", "wsd", "two_stage"}, "shape after the warm-up");
  visitor.field("warmup_steps", warmup_steps, 0, kMaxSteps, "linear rise to the peak");
  visitor.field("decay_fraction", decay_fraction, 0, 1, "wsd: share of max_steps that decays");
  visitor.field("learning_rate_drop_at", learning_rate_drop_at, 0, 1,
                "two_stage: share of max_steps before the lower peak");
  visitor.field("learning_rate_drop_ratio", learning_rate_drop_ratio, 0, 1,
                "two_stage: second peak over first");
  visitor.field("weight_decay_off_at", weight_decay_off_at, 0, 1,
                "two_stage: share of max_steps with weight decay");
  visitor.field("quant_warmup_steps", quant_warmup_steps, 0, kMaxSteps,
                "steps from float to full quantisation; 0: quantised from the start");
  visitor.field("backward", backward, {"int8", "fp32", "bf16"},
                "what the gradients' products of quantised projections are computed in; fp32: on a "
                "CPU only, bf16: on a GPU only");

  visitor.field("weight_decay", weight_decay, 0, 1e3, "of matrices only");
  visitor.field("adam_beta1", adam_beta1, 0, 1, "decay of the first moment");
  visitor.field("adam_beta2", adam_beta2, 0, 1, "decay of the second moment");
  visitor.field("adam_epsilon", adam_epsilon, 0, 1, "added to the root of the second moment");
  visitor.field("max_grad_norm", max_grad_norm, 0, 1e9, "clip the global norm; 0: off");

  visitor.field("logging_steps", logging_steps, 1, kMaxSteps, "steps between metrics");
  visitor.field("eval_steps", eval_steps, 0, kMaxSteps,
                "steps between evaluations; 0: only at the end");
  visitor.field("eval_max_bytes", eval_max_bytes, 0, kMaxCount,
                "validation bytes of an evaluation; 0: all");
  visitor.field("save_steps", save_steps, 0, kMaxSteps,
                "steps between checkpoints; 0: only at the end");
  visitor.field("save_total_limit", save_total_limit, 0, kMaxCount, "checkpoints to keep; 0: all");
  visitor.field("sample_steps", sample_steps, 0, kMaxSteps, "steps between text samples; 0: none");
  visitor.field("sample_prompt", sample_prompt, {}, "what a text sample goes on from");
  visitor.field("sample_bytes", sample_bytes, 1, 1 << 20,
                "length of a text sample; with a tokenizer: in tokens");
}

void TrainConfig::validate() const {
  const auto below_one = [](const char* key, double value) {
    if (value >= 1)
      throw UsageError(fmt::format("train.{} is {}; it must be in [0, 1)", key, value));
  };
  below_one("adam_beta1", adam_beta1);
  below_one("adam_beta2", adam_beta2);
  if (adam_epsilon <= 0)
    throw UsageError("train.adam_epsilon is 0; it must be positive, or unused weights become NaN");
  if (sample_steps > 0 && sample_prompt.empty())
    throw UsageError("train.sample_prompt is empty; give a prompt, or set train.sample_steps to 0");
}

}  // namespace bitnet
