// SPDX-License-Identifier: MIT
#include "core/bench/workloads.h"

#include <chrono>

#include "core/base/machine.h"
#include "core/base/random.h"
#include "core/train/optimizer.h"
#include "core/train/schedule.h"
#include "core/train/trainer.h"
#include "core/train/update_step.h"

namespace bitnet {
namespace {

constexpr int kWarmUpUpdates = 2;
constexpr double kTrainingRepeats = 10;  // seconds of a training over those of a repeat
constexpr std::size_t kTrainingBytes = 1 << 20;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<std::int32_t> random_tokens(std::int64_t count, std::int64_t vocabulary) {
  const RandomStream stream{1, RandomPurpose::test, 0};
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(stream.below(i, static_cast<std::uint64_t>(vocabulary)));
  return tokens;
}

// A model's state between tokens, as a Generator keeps it.
class Session {
 public:
  Session(Transformer& model, std::int64_t capacity, std::int64_t tokens_at_once, DType kv_cache)
      : model_(model),
        host_(random_tokens(capacity, model.config().vocab_size)),
        tokens_(model.backend().make_tensor(DType::i32, {1, tokens_at_once})),
        cache_(model.backend(), model.config(), capacity, kv_cache),
        activations_(model.backend(), model.config(), 1, tokens_at_once, Keep::nothing) {}

  const KvCache& cache() const { return cache_; }

  // Continues by the next random tokens; returns when their logits are there.
  void extend(std::int64_t count) {
    const TensorView row(tokens_.view().raw(), DType::i32, {1, count});
    model_.backend().copy_from_host(host_.data() + cache_.length(), row);
    model_.extend(row, cache_, activations_);
    model_.backend().synchronize();
  }

  // Back to a position whose keys and values were once computed: they are still there.
  void rewind(std::int64_t length) {
    cache_.clear();
    cache_.advance(length);
  }

 private:
  Transformer& model_;
  std::vector<std::int32_t> host_;  // [capacity]
  Tensor tokens_;                   // i32 [1, tokens_at_once]
  KvCache cache_;
  Activations activations_;
};

// The most memory that the process holds from here on.
class PeakMemory {
 public:
  // 0 where the system does not say.
  std::int64_t bytes() const { return was_reset_ ? peak_resident_bytes() : 0; }

 private:
  bool was_reset_ = reset_peak_resident_bytes();
};

void check_tokens(std::int64_t tokens, std::int64_t least, std::int64_t most, const char* what) {
  if (tokens < least || tokens > most)
    throw UsageError(
        fmt::format("{} is {}, but with this model it can be {} to {}", what, tokens, least, most));
}

BenchRow make_row(std::string workload, std::span<const double> samples, double limit,
                  std::string bound_by, std::int64_t peak_memory_bytes) {
  BenchRow row{.workload = std::move(workload),
               .unit = "tokens/s",
               .value = summarize(samples),
               .limit = limit,
               .bound_by = std::move(bound_by),
               .peak_memory_bytes = peak_memory_bytes,
               .details = {}};
  row.fraction_of_limit = row.value.median / limit;
  return row;
}

constexpr double kMilliseconds = 1e3;

}  // namespace

BenchRow measure_training(Backend& backend, const RunConfig& run, const MachineRates& rates,
                          const BenchEffort& effort) {
  RunConfig config = run;
  config.train.quant_warmup_steps = 0;  // its updates are slower, and not what the limits count
  if (config.train.max_steps <= kWarmUpUpdates)
    throw UsageError(fmt::format("train.max_steps is {}; bench needs more than {}",
                                 config.train.max_steps, kWarmUpUpdates));
  const MemoryPlan memory = plan_memory(backend, config);
  if (memory.total() > backend.memory_bytes())
    throw DeviceError(
        fmt::format("training needs {} bytes of memory, but the device has {}; use a smaller "
                    "model, train.sequence_length or train.per_device_train_batch_size",
                    memory.total(), backend.memory_bytes()));
  const PeakMemory peak;
  const std::vector<std::int32_t> numbers =
      random_tokens(static_cast<std::int64_t>(kTrainingBytes), kByteValues);
  const std::vector<std::uint8_t> data(numbers.begin(), numbers.end());
  Transformer model(backend, config.model, WeightForm::latent);
  model.initialize(static_cast<std::uint64_t>(config.train.seed));
  model.refresh_quantized(quant_amount_at(config.train, 0));
  Optimizer optimizer(backend, model.parameters());
  const BatchLoader loader(data, plan_batches(config));
  UpdateStep update(config, model, optimizer, loader);

  std::vector<double> rate, milliseconds;
  const auto start = Clock::now();
  for (std::int64_t step = 0; step < config.train.max_steps; ++step) {
    const auto before = Clock::now();
    update.run(step);
    backend.synchronize();
    const double seconds = seconds_since(before);
    if (step < kWarmUpUpdates) continue;
    rate.push_back(static_cast<double>(update.tokens_per_step()) / seconds);
    milliseconds.push_back(kMilliseconds * seconds);
    if (static_cast<int>(rate.size()) >= effort.repeats &&
        seconds_since(start) >= kTrainingRepeats * effort.seconds)
      break;
  }

  const Operations token = training_operations(config.model, config.train.gradient_precision());
  const double seconds = token.seconds(rates);
  BenchRow row = make_row("train", rate, 1 / seconds, token.bound_by(rates), peak.bytes());
  const auto tokens = static_cast<double>(update.tokens_per_step());
  const double scale = kMilliseconds * tokens;
  const double attention =
      attention_operations(config.model, config.train.sequence_length, /*training=*/true);
  row.details = {
      {"tokens_per_update", tokens},
      {"ms_per_update", summarize(milliseconds).median},
      {"ms_at_limit_projections", scale * seconds},
      {"ms_at_limit_attention", scale * attention / rates.float_dot},
      {"ms_at_limit_head", scale * head_operations(config.model, true) / rates.float_dot}};
  return row;
}

void check_prompt(const ModelConfig& config, std::int64_t tokens) {
  check_tokens(tokens, 1, config.max_position_embeddings, "the number of prompt tokens");
}
void check_context(const ModelConfig& config, std::int64_t context) {
  // A token is decoded behind it.
  check_tokens(context, 0, config.max_position_embeddings - 1, "the context");
}

BenchRow measure_prefill(Transformer& model, std::int64_t tokens, const MachineRates& rates,
                         const BenchEffort& effort, DType kv_cache) {
  check_prompt(model.config(), tokens);
  const PeakMemory peak;
  Session session(model, tokens, tokens, kv_cache);
  std::vector<double> rate;
  for (int i = -1; i < effort.repeats; ++i) {  // the first is the warm-up
    session.rewind(0);
    const auto start = Clock::now();
    session.extend(tokens);
    if (i >= 0) rate.push_back(static_cast<double>(tokens) / seconds_since(start));
  }
  const Operations token = forward_operations(model.config());
  const double seconds = token.seconds(rates);
  BenchRow row = make_row("prefill", rate, 1 / seconds, token.bound_by(rates), peak.bytes());
  const auto count = static_cast<double>(tokens);
  row.details = {{"tokens", count},
                 {"bytes_kv_cache", static_cast<double>(kv_cache_bytes(model.config(), tokens,
                                                                       session.cache().dtype()))},
                 {"ms", kMilliseconds * count / row.value.median},
                 {"ms_at_limit_projections", kMilliseconds * count * seconds},
                 {"ms_at_limit_attention", kMilliseconds * count *
                                               attention_operations(model.config(), tokens, false) /
                                               rates.float_dot}};
  return row;
}

std::int64_t head_bytes(const ModelConfig& config, HeadPrecision precision) {
  const std::int64_t elements = config.vocab_size * config.hidden_size,
                     scales = config.vocab_size * size_of(DType::f32);
  return precision == HeadPrecision::int8 ? elements + scales : elements * size_of(DType::f32);
}

DecodeBytes decode_bytes(const Transformer& model, DType kv_cache, std::int64_t context) {
  DecodeBytes bytes;
  const ModelConfig& config = model.config();
  for (const Parameter& p : model.parameters().all())
    if (p.spec.role == TensorRole::projection)
      bytes.projections += config.quantized_activations()
                               ? p.packed.bytes() + p.weight_scale.bytes()
                               : p.spec.shape.elements() * size_of(DType::f32);
  bytes.head = head_bytes(config, model.head_precision());
  bytes.kv_cache = kv_cache_bytes(config, context + 1, kv_cache);
  return bytes;
}

BenchRow measure_decode(Transformer& model, std::int64_t context, const MachineRates& rates,
                        const ReadRate& cache_read, const BenchEffort& effort, DType kv_cache) {
  check_context(model.config(), context);
  const PeakMemory peak;
  Session session(model, context + 1, std::max<std::int64_t>(context, 1), kv_cache);
  if (context > 0) session.extend(context);
  const auto next_token = [&] {
    session.rewind(context);
    session.extend(1);
  };
  for (int i = 0; i < 2; ++i) next_token();  // the warm-up: a device may record the second
  std::vector<double> rate;
  for (int i = 0; i < effort.repeats; ++i) {
    const auto start = Clock::now();
    double seconds = 0;
    std::int64_t tokens = 0;
    while (seconds < effort.seconds) {
      next_token();
      ++tokens;
      seconds = seconds_since(start);
    }
    rate.push_back(static_cast<double>(tokens) / seconds);
  }
  const std::int64_t peak_bytes = peak.bytes();  // before a buffer for cache_read()

  const DecodeBytes bytes = decode_bytes(model, session.cache().dtype(), context);
  const auto total = static_cast<double>(bytes.total());
  const bool in_l2 = bytes.total() <= rates.l2_bytes,
             in_l3 = !in_l2 && cache_read && bytes.total() <= cache_bytes(3);
  const double read = in_l2 ? rates.l2_read : in_l3 ? cache_read(bytes.total()) : rates.memory_read;
  BenchRow row = make_row("decode", rate, read / total,
                          in_l2   ? "l2_read"
                          : in_l3 ? "l3_read"
                                  : "memory_read",
                          peak_bytes);
  row.details = {{"context", static_cast<double>(context)},
                 {"ms_per_token", kMilliseconds / row.value.median},
                 {"bytes_per_token", total},
                 {"bytes_projections", static_cast<double>(bytes.projections)},
                 {"bytes_head", static_cast<double>(bytes.head)},
                 {"bytes_kv_cache", static_cast<double>(bytes.kv_cache)},
                 {"gigabytes_per_second", 1e-9 * total * row.value.median},
                 {"fraction_of_memory_read", total * row.value.median / rates.memory_read}};
  return row;
}

}  // namespace bitnet
