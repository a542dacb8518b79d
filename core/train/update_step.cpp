// SPDX-License-Identifier: MIT
#include "core/train/update_step.h"

#include <cmath>
#include <functional>
#include <numeric>
#include <optional>

#include "core/train/schedule.h"

namespace bitnet {

Keep kept_activations(const TrainConfig& config) {
  return config.gradient_checkpointing ? Keep::block_inputs : Keep::everything;
}

DType activation_dtype(const Backend& backend, const TrainConfig& config) {
  const bool warming_up = config.quant_warmup_steps > 0;
  if (config.activation_dtype == "fp32") return DType::f32;
  if (config.activation_dtype == "auto") return warming_up ? DType::f32 : backend.training_dtype();
  if (backend.training_dtype() != DType::bf16)
    throw UsageError(
        fmt::format("train.activation_dtype is bf16, which the {} backend does not have; use auto, "
                    "fp32, or a GPU",
                    backend.name()));
  if (warming_up)
    throw UsageError(
        "train.activation_dtype is bf16, but the quantisation warm-up (train.quant_warmup_steps) "
        "needs fp32; use auto or fp32");
  return DType::bf16;
}

void check_precisions(const Backend& backend, const TrainConfig& config) {
  activation_dtype(backend, config);
  if (backend.computes(config.gradient_precision())) return;
  throw UsageError(fmt::format(
      "train.backward is {}, which the {} backend does not have; use int8, or {}", config.backward,
      backend.name(), config.backward == "bf16" ? "fp32, or a GPU" : "bf16, or --device cpu"));
}

UpdateStep::UpdateStep(const RunConfig& config, Transformer& model, Optimizer& optimizer,
                       const BatchLoader& loader)
    : config_(config),
      model_(model),
      optimizer_(optimizer),
      loader_(loader),
      activations_(model.backend(), config.model, config.train.per_device_train_batch_size,
                   config.train.sequence_length, kept_activations(config.train),
                   /*mixed=*/config.train.quant_warmup_steps > 0,
                   activation_dtype(model.backend(), config.train)) {
  Backend& backend = model.backend();
  const std::int64_t batch = config.train.per_device_train_batch_size,
                     length = config.train.sequence_length, rows = batch * length;
  tokens_per_step_ = rows * config.train.gradient_accumulation_steps;
  host_tokens_.resize(static_cast<std::size_t>(rows));
  host_targets_.resize(static_cast<std::size_t>(rows));
  tokens_ = backend.make_tensor(DType::i32, {batch, length});
  targets_ = backend.make_tensor(DType::i32, {rows});
  loss_ = backend.make_tensor(DType::f32, {rows});
  const std::int64_t micro_batches = config.train.gradient_accumulation_steps;
  losses_ = backend.make_tensor(DType::f32, {micro_batches, rows});
  for (std::int64_t i = 0; i < micro_batches; ++i) loss_views_.push_back(losses_.view().rows(i, 1));
  loss_sums_.resize(loss_views_.size());
}

void UpdateStep::issue_micro_batch(const DropoutState* dropout, bool again) {
  Backend& backend = model_.backend();
  const auto pass = [&] {
    const TensorView logits = model_.forward(tokens_, activations_, dropout);
    backend.cross_entropy(logits, targets_, loss_,
                          static_cast<float>(1 / static_cast<double>(tokens_per_step_)), logits);
    model_.backward(tokens_, logits, activations_, dropout, config_.train.gradient_precision());
  };
  if (again)
    backend.repeat(recorded_pass_, std::nullopt, std::cref(pass));  // by reference: no allocation
  else
    pass();
}

void UpdateStep::issue_gradients(std::int64_t step) {
  Backend& backend = model_.backend();
  const auto rows = static_cast<std::int64_t>(host_tokens_.size());
  const bool drops = config_.model.dropout > 0;
  // The operations of a micro-batch are those of the last step, unless they drop at random or the
  // quantisation warm-up has gone on.
  const bool again = !drops && last_model_ == model_.number();
  last_model_ = model_.number();
  if (!again) recorded_pass_.reset();
  model_.parameters().zero_gradients(backend);
  for (std::int64_t micro_batch = 0; micro_batch < losses_.dim(0); ++micro_batch) {
    loader_.batch(step, micro_batch, host_tokens_, host_targets_);
    backend.copy_from_host(host_tokens_.data(), tokens_);
    backend.copy_from_host(host_targets_.data(), targets_);
    const DropoutState dropout{.seed = static_cast<std::uint64_t>(config_.train.seed),
                               .step = static_cast<std::uint32_t>(step),
                               .first_token = static_cast<std::uint64_t>(micro_batch * rows)};
    issue_micro_batch(drops ? &dropout : nullptr, again);
    backend.copy(loss_, losses_.view().rows(micro_batch, 1));
  }
}

double UpdateStep::mean_loss(std::int64_t step) const {
  const double sum = std::accumulate(loss_sums_.begin(), loss_sums_.end(), 0.0);
  if (!std::isfinite(sum)) fail_loss(step, sum);
  return sum / static_cast<double>(tokens_per_step_);
}

double UpdateStep::accumulate_gradients(std::int64_t step) {
  issue_gradients(step);
  model_.backend().sums(loss_views_, {}, loss_sums_);
  return mean_loss(step);
}

UpdateStep::Result UpdateStep::run(std::int64_t step) {
  issue_gradients(step);
  Result result;
  // The only wait for the device, and until then all is issued without one.
  const Optimizer::GradientNorm norm = optimizer_.gradient_norm(loss_views_, loss_sums_);
  result.loss = mean_loss(step);
  result.gradient_norm = norm.value;
  if (norm.culprit != nullptr)
    throw NonFiniteError(fmt::format("step {}: the gradient of {} is not finite (loss {:.4f})",
                                     step + 1, norm.culprit->spec.name, result.loss));
  optimizer_.update(config_.train, step, norm.value);
  model_.refresh_quantized(quant_amount_at(config_.train, step + 1));
  return result;
}

const Parameter* UpdateStep::first_non_finite_weights() const {
  for (const Parameter& p : model_.parameters().all())
    if (!std::isfinite(model_.backend().sum_of_squares(p.value))) return &p;
  return nullptr;
}

void UpdateStep::check_weights(std::int64_t steps_done) const {
  if (const Parameter* p = first_non_finite_weights())
    throw NonFiniteError(
        fmt::format("after step {} the weights of {} are not finite", steps_done, p->spec.name));
}

// A loss is not finite because of the weights or because of the activations; the message says
// which.
void UpdateStep::fail_loss(std::int64_t step, double loss) const {
  const Parameter* p = first_non_finite_weights();
  throw NonFiniteError(
      fmt::format("step {}: the loss is {}: {}", step + 1, loss,
                  p == nullptr ? std::string("the weights are finite, so activations overflowed")
                               : fmt::format("the weights of {} are not finite", p->spec.name)));
}

}  // namespace bitnet
