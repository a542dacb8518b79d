// SPDX-License-Identifier: MIT
#include "core/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numbers>
#include <system_error>

#include "core/checkpoint/model_file.h"
#include "core/checkpoint/training_state.h"
#include "core/convert/native_writer.h"
#include "core/data/token_lengths.h"
#include "core/generate/generator.h"
#include "core/train/metrics_log.h"
#include "core/train/projection_monitor.h"
#include "core/train/schedule.h"
#include "core/train/tensorboard_log.h"

namespace bitnet {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Every `interval` steps and at the end; an interval of 0: only at the end.
bool due(std::int64_t step, std::int64_t interval, std::int64_t max_steps) {
  return step == max_steps || (interval > 0 && step % interval == 0);
}

std::string describe_last_checkpoint(const RunFolder& folder) {
  const auto last = folder.latest_checkpoint();
  return last ? fmt::format("the last good checkpoint is {}",
                            folder.checkpoint_folder(*last).string())
              : "there is no checkpoint yet";
}

double per_second(std::int64_t tokens, double seconds) {
  return static_cast<double>(tokens) / std::max(seconds, 1e-9);
}

}  // namespace

BatchPlan plan_batches(const RunConfig& config) {
  return {.sequence_length = config.train.sequence_length,
          .batch_size = config.train.per_device_train_batch_size,
          .micro_batches = config.train.gradient_accumulation_steps,
          .order = config.data.order,
          .seed = static_cast<std::uint64_t>(config.train.seed)};
}

MemoryPlan plan_memory(Backend& backend, const RunConfig& config) {
  check_precisions(backend, config.train);
  const WeightQuantizer quantizer = config.model.weight_quantizer();
  // The float operands of products that are not wholly quantised: weight-only models, and the
  // quantisation warm-up.
  const bool warming_up = config.train.quant_warmup_steps > 0;
  const bool operands =
      config.model.quantized() && (warming_up || !config.model.quantized_activations());
  MemoryPlan plan;
  for (const TensorSpec& spec : list_tensors(config.model)) {
    const std::int64_t elements = spec.shape.elements(), floats = elements * size_of(DType::f32);
    plan.weights += floats;
    plan.optimizer += 3 * floats;
    if (spec.role != TensorRole::projection || !config.model.quantized()) continue;
    plan.weights += elements / 4 + (operands ? floats : 0) +
                    scale_count(quantizer, spec.shape[0], spec.shape[1]) * size_of(DType::f32);
  }
  // Every activation has a row for each token.
  const std::int64_t rows = config.train.per_device_train_batch_size * config.train.sequence_length;
  plan.activations = Activations(backend, config.model, 1, 1, kept_activations(config.train),
                                 warming_up, activation_dtype(backend, config.train))
                         .bytes() *
                     rows;
  const std::int64_t length = config.train.sequence_length;
  plan.evaluation = Activations(backend, config.model, 1, 1, Keep::nothing).bytes() *
                    eval_batch(config.model, config.train.per_device_train_batch_size, length) *
                    length;
  if (config.train.sample_steps > 0)
    plan.evaluation = std::max(plan.evaluation,
                               generator_bytes(backend, config.model, GenerateOptions().kv_cache));
  return plan;
}

Trainer::Trainer(Backend& backend, const RunConfig& config, const TrainingData& data,
                 std::string program_version, std::shared_ptr<const Tokenizer> tokenizer,
                 const InitialWeights& initial)
    : config_(config),
      data_(data),
      program_version_(std::move(program_version)),
      tokenizer_(std::move(tokenizer)),
      model_(backend, config_.model, WeightForm::latent),
      optimizer_(backend, model_.parameters()),
      loader_(data_.train, plan_batches(config_)),
      update_(config_, model_, optimizer_, loader_) {
  config_.model.require_token_ids(tokenizer_->vocab_size());
  if (initial)
    initial(model_);
  else
    model_.initialize(static_cast<std::uint64_t>(config_.train.seed));
  model_.refresh_quantized(quant_amount_at(config_.train, 0));
}

void Trainer::resume(const std::filesystem::path& checkpoint) {
  load_parameters(checkpoint, model_);
  const TrainingState state =
      load_training_state(model_.backend(), checkpoint, model_.parameters(),
                          optimizer_.first_moments(), optimizer_.second_moments());
  if (state.seed != static_cast<std::uint64_t>(config_.train.seed))
    throw Error(fmt::format("{}: was trained with seed {}, but train.seed is {}",
                            checkpoint.string(), state.seed, config_.train.seed));
  step_ = state.step;
  best_bits_per_byte_ = state.best_bits_per_byte;
  model_.refresh_quantized(quant_amount_at(config_.train, step_));
}

TrainSummary Trainer::run(RunFolder& folder, TrainObserver& observer,
                          const std::atomic<bool>& stop) {
  MetricsLog metrics(folder.metrics_file(), step_);
  TensorBoardLog tensorboard(folder.tensorboard_folder(), step_ + 1);
  observers_ = {&metrics, &tensorboard, &observer};
  TrainSummary summary;
  try {
    train(folder, stop, summary);
  } catch (const NonFiniteError& e) {
    throw Error(
        fmt::format("{}; training stopped, nothing of this step was saved; {}. Try a lower "
                    "train.learning_rate, more train.warmup_steps or clipping with "
                    "train.max_grad_norm",
                    e.what(), describe_last_checkpoint(folder)));
  }
  summary.step = step_;
  summary.tokens = step_ * tokens_per_step();
  return summary;
}

void Trainer::train(RunFolder& folder, const std::atomic<bool>& stop, TrainSummary& summary) {
  const TrainConfig& t = config_.train;
  const Stopwatch whole;
  double update_seconds = 0, update_seconds_before = 0;  // now, and at the previous TrainMetrics
  const std::int64_t first_step = step_;
  std::int64_t step_before = step_;
  bool stopping = stop.load();

  while (step_ < t.max_steps && !stopping) {
    const std::int64_t next = step_ + 1;
    const bool logging = next == 1 || due(next, t.logging_steps, t.max_steps);
    const Stopwatch update;
    const UpdateStep::Result result = update_.run(step_);
    update_seconds += update.seconds();
    step_ = next;
    bits_per_byte_.reset();
    summary.loss = result.loss;
    for (TrainObserver* o : observers_) o->on_step(step_, result.loss);

    std::optional<TrainMetrics> metrics;
    if (logging) {
      TrainMetrics& m = metrics.emplace(measure(result));
      m.tokens_per_second = per_second((step_ - step_before) * tokens_per_step(),
                                       update_seconds - update_seconds_before);
      m.seconds = whole.seconds();
      step_before = step_;
      update_seconds_before = update_seconds;
    }
    try {
      report(metrics ? &*metrics : nullptr, summary);
    } catch (const NonFiniteError&) {
      throw;
    } catch (const std::exception& failure) {
      try {
        save(folder);
      } catch (const std::exception& e) {
        throw Error(fmt::format("{}; {}", failure.what(), e.what()));
      }
      throw;
    }
    stopping = stop.load();
    if (stopping || due(step_, t.save_steps, t.max_steps)) save(folder);
  }
  summary.interrupted = stopping && step_ < t.max_steps;
  summary.seconds = whole.seconds();
  summary.tokens_per_second = per_second((step_ - first_step) * tokens_per_step(), update_seconds);
}

void Trainer::report(const TrainMetrics* metrics, TrainSummary& summary) {
  const TrainConfig& t = config_.train;
  if (metrics != nullptr)
    for (TrainObserver* o : observers_) o->on_train(*metrics);
  if (!data_.valid.empty() && due(step_, t.eval_steps, t.max_steps)) {
    const EvalMetrics m = evaluate_valid();
    bits_per_byte_ = summary.valid_bits_per_byte = m.bits_per_byte;
    for (TrainObserver* o : observers_) o->on_eval(m);
  }
  if (t.sample_steps > 0 && due(step_, t.sample_steps, t.max_steps)) {
    const SampleMetrics m = sample();
    for (TrainObserver* o : observers_) o->on_sample(m);
  }
}

TrainMetrics Trainer::measure(const UpdateStep::Result& result) const {
  TrainMetrics m;
  m.step = step_;
  m.tokens = step_ * update_.tokens_per_step();
  m.loss = result.loss;
  m.bits_per_byte = result.loss / std::numbers::ln2 / data_.bytes_per_token;
  m.learning_rate = learning_rate_at(config_.train, step_ - 1);
  m.weight_decay = weight_decay_at(config_.train, step_ - 1);
  m.gradient_norm = result.gradient_norm;
  m.quant_amount = quant_amount_at(config_.train, step_ - 1);
  m.projections = measure_projections(model_.backend(), model_.parameters());
  return m;
}

// Of the fully quantised model, also during the quantisation warm-up: that is the model a
// checkpoint stands for.
EvalMetrics Trainer::evaluate_valid() {
  update_.check_weights(step_);
  if (!valid_text_) {
    const std::int64_t limit = config_.train.eval_max_bytes;
    const TokenLengths::Part part =
        TokenLengths(*tokenizer_)
            .leading(data_.valid, limit > 0 ? limit : std::numeric_limits<std::int64_t>::max());
    valid_text_.emplace(*tokenizer_, part.tokens, part.bytes);
  }
  EvalOptions options;
  options.context = config_.train.sequence_length;
  options.batch = config_.train.per_device_train_batch_size;
  const double amount = quant_amount_at(config_.train, step_);
  if (amount != 1) model_.refresh_quantized(1);
  const EvalResult result = evaluate(model_, *valid_text_, options);
  if (amount != 1) model_.refresh_quantized(amount);
  if (!std::isfinite(result.bits_per_byte))
    throw NonFiniteError(
        fmt::format("after step {} the loss on the validation split is {}", step_, result.nats));

  EvalMetrics m;
  m.step = step_;
  m.bytes = result.bytes;
  m.loss = result.nats / static_cast<double>(result.tokens);
  m.bits_per_byte = result.bits_per_byte;
  m.tokens_per_second = result.tokens_per_second;
  m.seconds = result.seconds;
  return m;
}

SampleMetrics Trainer::sample() {
  update_.check_weights(step_);
  GenerateOptions options;
  options.max_new_tokens = config_.train.sample_bytes;
  options.stop_at_end_of_document = false;
  options.sampler.seed = static_cast<std::uint64_t>(config_.train.seed + step_);
  const double amount = quant_amount_at(config_.train, step_);
  if (amount != 1) model_.refresh_quantized(1);
  SampleMetrics m{.step = step_, .prompt = config_.train.sample_prompt, .text = {}};
  Generator generator(model_, options, tokenizer_);
  generator.generate(m.prompt, [&m](std::string_view bytes) { m.text += bytes; });
  if (amount != 1) model_.refresh_quantized(amount);
  return m;
}

void Trainer::save(RunFolder& folder) {
  update_.check_weights(step_);
  for (TrainObserver* o : observers_) o->before_checkpoint();
  const bool best =
      bits_per_byte_ && (!best_bits_per_byte_ || *bits_per_byte_ < *best_bits_per_byte_);
  if (best) best_bits_per_byte_ = bits_per_byte_;
  TrainingState state;
  state.step = step_;
  state.tokens = step_ * tokens_per_step();
  state.seed = static_cast<std::uint64_t>(config_.train.seed);
  state.quant_amount = quant_amount_at(config_.train, step_ - 1);
  state.best_bits_per_byte = best_bits_per_byte_;
  state.version = program_version_;
  state.device = model_.backend().name();

  std::filesystem::path temporary, complete;
  try {
    temporary = folder.begin_checkpoint(step_);
    save_latent(model_, temporary);
    if (!reads_bytes(*tokenizer_)) {
      tokenizer_->save(temporary, config_.model.max_position_embeddings);
      write_generation_config(*tokenizer_, temporary);
    }
    save_training_state(model_.backend(), temporary, state, model_.parameters(),
                        optimizer_.first_moments(), optimizer_.second_moments());
    complete = folder.complete_checkpoint(step_);
    if (best) folder.mark_best(step_);
    folder.delete_old_checkpoints(config_.train.save_total_limit);
  } catch (const std::exception& e) {
    if (!complete.empty())
      throw Error(
          fmt::format("the checkpoint {} is complete, but then: {}", complete.string(), e.what()));
    std::error_code ignored;
    if (!temporary.empty()) std::filesystem::remove_all(temporary, ignored);
    throw Error(fmt::format("cannot write the checkpoint of step {}: {}; {}", step_, e.what(),
                            describe_last_checkpoint(folder)));
  }
  for (TrainObserver* o : observers_) o->on_checkpoint(step_, complete, best);
}

MemoryPlan Trainer::memory() const {
  MemoryPlan plan;
  for (const Parameter& p : model_.parameters().all())
    plan.weights += p.value.bytes() + p.packed.bytes() + p.weight_scale.bytes() + p.operand.bytes();
  plan.optimizer = optimizer_.bytes();
  plan.activations = update_.activation_bytes();
  return plan;
}

}  // namespace bitnet
