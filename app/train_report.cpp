// SPDX-License-Identifier: MIT
#include "app/train_report.h"

#include <nlohmann/json.hpp>

#include "app/standard_streams.h"
#include "core/train/schedule.h"

namespace bitnet {
namespace {

std::string format_bytes(std::int64_t bytes) {
  return bytes < 10'000'000 ? fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3)
                            : fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

}  // namespace

void check_memory(const Backend& backend, const MemoryPlan& plan) {
  if (plan.total() <= backend.memory_bytes()) return;
  throw DeviceError(
      fmt::format("this run needs {} of memory, but the device has {}; use a smaller model, "
                  "train.sequence_length or train.per_device_train_batch_size, or "
                  "train.gradient_checkpointing=true",
                  format_bytes(plan.total()), format_bytes(backend.memory_bytes())));
}

std::string describe_memory(const MemoryPlan& plan) {
  return fmt::format(
      "{} and scratch (weights {}, gradients and moments {}, activations {}, evaluation {})",
      format_bytes(plan.total()), format_bytes(plan.weights), format_bytes(plan.optimizer),
      format_bytes(plan.activations), format_bytes(plan.evaluation));
}

void print_plan(const Backend& backend, const RunConfig& config, const MemoryPlan& memory,
                const TextData& data, bool json) {
  std::int64_t parameters = 0;
  for (const TensorSpec& spec : list_tensors(config.model)) parameters += spec.shape.elements();
  const std::size_t train = data.size(DataPart::train), valid = data.size(DataPart::valid),
                    test = data.size(DataPart::test);
  const std::string unit = data.unit();
  const std::int64_t tokens_per_step =
      config.train.sequences_per_step() * config.train.sequence_length;
  if (json) {
    const nlohmann::ordered_json object = {{"parameters", parameters},
                                           {"memory_bytes", memory.total()},
                                           {"device", backend.name()},
                                           {"device_memory_bytes", backend.memory_bytes()},
                                           {"tokens_per_step", tokens_per_step},
                                           {"max_steps", config.train.max_steps},
                                           {"train_" + unit, train},
                                           {"valid_" + unit, valid},
                                           {"test_" + unit, test}};
    write_json_line(object);
    return;
  }
  write_stdout(fmt::format(
      "parameters       {}\n"
      "memory           {}\n"
      "device           {}, {}\n"
      "tokens per step  {} ({} sequences x {})\n"
      "steps            {}\n"
      "data             {}: train {}, valid {}, test {} {}\n"
      "Nothing was written: this was a dry run.\n",
      parameters, describe_memory(memory), backend.name(), format_bytes(backend.memory_bytes()),
      tokens_per_step, config.train.sequences_per_step(), config.train.sequence_length,
      config.train.max_steps, config.data.path, train, valid, test, unit));
}

void print_summary(const RunFolder& folder, const TrainSummary& summary, TrainConsole& console,
                   bool json) {
  std::string line = fmt::format("{} after {} steps ({} tokens) in {}",
                                 summary.interrupted ? "interrupted" : "done", summary.step,
                                 summary.tokens, format_duration(summary.seconds));
  if (summary.loss)
    line += fmt::format(", {:.0f} tokens/s, loss {:.4f}", summary.tokens_per_second, *summary.loss);
  if (summary.valid_bits_per_byte)
    line += fmt::format(", validation {:.4f} bits/byte", *summary.valid_bits_per_byte);
  console.say(line + ": " + folder.path().string());
  if (summary.interrupted)
    console.say("go on with: bitnet train --resume " + folder.path().string());
  if (!json) return;
  nlohmann::ordered_json object = {{"run", folder.path().string()}, {"steps", summary.step}};
  object["loss"] = summary.loss ? nlohmann::ordered_json(*summary.loss) : nullptr;
  object["valid_bits_per_byte"] =
      summary.valid_bits_per_byte ? nlohmann::ordered_json(*summary.valid_bits_per_byte) : nullptr;
  object["tokens_per_second"] = summary.tokens_per_second;
  object["seconds"] = summary.seconds;
  object["interrupted"] = summary.interrupted;
  write_json_line(object);
}

void warn_of_changes(const RunConfig& before, const RunConfig& now, const TrainingState& checkpoint,
                     const Backend& backend, TrainConsole& console) {
  for (const std::string& change : describe_changes(before, now)) console.say("changed: " + change);
  if (!same_schedule(before.train, now.train, checkpoint.step))
    console.say(fmt::format(
        "warning: the schedule differs from that of the {} steps done: the result is not that of "
        "one run with this config",
        checkpoint.step));
  if (!checkpoint.device.empty() && checkpoint.device != backend.name())
    console.say(fmt::format(
        "warning: the checkpoint was trained on {}, this is {}: their arithmetic differs, so the "
        "result is close to that of a run on one of them, but not equal to the bit",
        checkpoint.device, backend.name()));
}

}  // namespace bitnet
