// SPDX-License-Identifier: MIT
// bitnet train: begins a run from a config, or goes on with one that was stopped.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <ctime>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/commands.h"
#include "app/model_option.h"
#include "app/standard_streams.h"
#include "app/train_console.h"
#include "app/version.h"
#include "core/base/file.h"
#include "core/base/machine.h"
#include "core/checkpoint/run_folder.h"
#include "core/data/byte_source.h"
#include "core/train/run_config.h"
#include "core/train/trainer.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr int kInterrupted = 130;

struct TrainArguments {
  std::string config, out, resume;
  std::vector<std::string> settings;
  CLI::Option* resume_option = nullptr;
  bool force = false, dry_run = false, print_config = false, json = false;

  bool resuming() const { return resume_option->count() > 0; }
};

// --- signals ---

// While it lives, the first SIGINT or SIGTERM asks the training to stop after its step; the second
// one ends the process at once. A thread of its own waits for them, and every thread made later has
// them blocked: oneDNN's products keep data below the stack pointer, where the kernel would put a
// signal's frame, and a handler that interrupts one of them corrupts the heap.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, &mask_before_);
    waiter_ = std::thread([this] { wait(); });
  }
  ~StopSignals() {
    done_ = true;
    pthread_kill(waiter_.native_handle(), SIGTERM);
    waiter_.join();
    pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  const std::atomic<bool>& stop_requested() const { return stop_requested_; }

 private:
  void wait() {
    for (int signal = 0; sigwait(&signals_, &signal) == 0 && !done_;)
      if (stop_requested_.exchange(true)) _exit(kInterrupted);
  }

  sigset_t signals_{}, mask_before_{};
  std::atomic<bool> stop_requested_ = false, done_ = false;
  std::thread waiter_;
};

// --- which run ---

// The folder that --resume means: its value, else --out, else the last run. Links are followed here,
// once: runs/latest may soon lead elsewhere.
fs::path folder_to_resume(const TrainArguments& arguments) {
  if (!arguments.resume.empty() && !arguments.out.empty())
    throw UsageError("--resume DIR and --out DIR name the folder twice; give it once");
  const bool named = !arguments.resume.empty() || !arguments.out.empty();
  fs::path folder = named ? fs::path(arguments.resume.empty() ? arguments.out : arguments.resume)
                          : fs::path(kDefaultModel);
  std::error_code code;
  // Where there are no symbolic links, it is a text file.
  if (folder.filename() == "latest" && fs::is_regular_file(folder, code))
    folder = pointed_path(folder).value_or(folder);
  const fs::path real = fs::canonical(folder, code);
  if (code && !named)
    throw UsageError(
        fmt::format("{} points to no run; name the folder to --resume", folder.string()));
  if (!code) folder = folder.is_absolute() ? real : fs::proximate(real, code);
  if (code) throw Error(fmt::format("{}: {}", folder.string(), code.message()));
  if (looks_like_checkpoint(folder))
    throw UsageError(
        fmt::format("{} is a checkpoint; give --resume the folder of its run", folder.string()));
  return folder;
}

// The config of the run in `folder`, with `settings` over it.
RunConfig read_saved_config(const fs::path& folder, std::span<const std::string> settings = {}) {
  const fs::path file = folder / "config.json";
  std::error_code ignored;
  if (!fs::exists(file, ignored))
    throw Error(
        fmt::format("{}: is not the folder of a run: it has no config.json", folder.string()));
  return read_run_config(read_text_file(file), file.string(), settings);
}

// `resumed`: the run to go on with, if any.
RunConfig read_config(const TrainArguments& arguments, const std::optional<fs::path>& resumed) {
  if (!arguments.config.empty())
    return read_run_config(read_text_file(arguments.config), arguments.config, arguments.settings);
  if (!resumed)
    throw UsageError(
        "--config FILE is needed, for example configs/quickstart.json; or --resume a run");
  return read_saved_config(*resumed, arguments.settings);
}

// runs/<config name>-<YYYYmmdd-HHMMSS>, with "-2", "-3", … where that exists.
fs::path default_run_folder(const std::string& config) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char time[32];
  std::strftime(time, sizeof time, "%Y%m%d-%H%M%S", &local);
  const fs::path folder = fs::path("runs") / (fs::path(config).stem().string() + "-" + time);
  fs::path unused = folder;
  std::error_code ignored;
  for (int n = 2; fs::exists(unused, ignored); ++n)
    unused = fmt::format("{}-{}", folder.string(), n);
  return unused;
}

ByteSource open_data(const std::string& path) {
  std::error_code ignored;
  if (fs::status(path, ignored).type() == fs::file_type::not_found)
    throw Error(fmt::format(
        "{}: there is no such data file; fetch one with scripts/get_data.sh, or name yours with "
        "--set data.path=FILE",
        path));
  return ByteSource(path);
}

// --- what it says ---

std::string format_bytes(std::int64_t bytes) {
  return bytes < 10'000'000 ? fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3)
                            : fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

// Better here than by the system's out-of-memory killer an hour later.
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

void print_plan(const TrainArguments& arguments, const Backend& backend, const RunConfig& config,
                const MemoryPlan& memory, const DataSplits& data) {
  std::int64_t parameters = 0;
  for (const TensorSpec& spec : list_tensors(config.model)) parameters += spec.shape.elements();
  const std::int64_t tokens_per_step =
      config.train.sequences_per_step() * config.train.sequence_length;
  if (arguments.json) {
    const nlohmann::ordered_json object = {
        {"parameters", parameters},           {"memory_bytes", memory.total()},
        {"tokens_per_step", tokens_per_step}, {"max_steps", config.train.max_steps},
        {"train_bytes", data.train.size()},   {"valid_bytes", data.valid.size()},
        {"test_bytes", data.test.size()}};
    write_json_line(object);
    return;
  }
  write_stdout(fmt::format(
      "parameters       {}\n"
      "memory           {}\n"
      "device           {}, {}\n"
      "tokens per step  {} ({} sequences x {} bytes)\n"
      "steps            {}\n"
      "data             {}: train {}, valid {}, test {} bytes\n"
      "Nothing was written: this was a dry run.\n",
      parameters, describe_memory(memory), backend.name(), format_bytes(backend.memory_bytes()),
      tokens_per_step, config.train.sequences_per_step(), config.train.sequence_length,
      config.train.max_steps, config.data.path, data.train.size(), data.valid.size(),
      data.test.size()));
}

void print_summary(const TrainArguments& arguments, const RunFolder& folder,
                   const TrainSummary& summary, TrainConsole& console) {
  std::string line = fmt::format("{} after {} steps ({} bytes) in {}",
                                 summary.interrupted ? "interrupted" : "done", summary.step,
                                 summary.tokens, format_duration(summary.seconds));
  if (summary.loss)
    line += fmt::format(", {:.0f} tokens/s, loss {:.4f}", summary.tokens_per_second, *summary.loss);
  if (summary.valid_bits_per_byte)
    line += fmt::format(", validation {:.4f} bits/byte", *summary.valid_bits_per_byte);
  console.say(line + ": " + folder.path().string());
  if (summary.interrupted)
    console.say("go on with: bitnet train --resume " + folder.path().string());
  if (!arguments.json) return;
  nlohmann::ordered_json object = {{"run", folder.path().string()}, {"steps", summary.step}};
  object["loss"] = summary.loss ? nlohmann::ordered_json(*summary.loss) : nullptr;
  object["valid_bits_per_byte"] =
      summary.valid_bits_per_byte ? nlohmann::ordered_json(*summary.valid_bits_per_byte) : nullptr;
  object["tokens_per_second"] = summary.tokens_per_second;
  object["seconds"] = summary.seconds;
  object["interrupted"] = summary.interrupted;
  write_json_line(object);
}

// --- the command ---

// `runs/latest`; a folder where it cannot be made is no reason not to train.
void point_latest(const RunFolder& folder, TrainConsole& console) {
  try {
    make_folders("runs");
    point_to(kDefaultModel, folder.path());
  } catch (const std::exception& e) {
    console.say(fmt::format("{} was not updated: {}", kDefaultModel, e.what()));
  }
}

void run_train(const TrainArguments& arguments, AppContext& context) {
  std::optional<fs::path> resumed;
  if (arguments.resuming()) resumed = folder_to_resume(arguments);
  const RunConfig config = read_config(arguments, resumed);
  if (arguments.print_config) return write_stdout(write_run_config(config));

  const ByteSource source = open_data(config.data.path);
  const DataSplits data = split_bytes(source.bytes(), config.data.split);
  const BatchLoader check_data(data.train, plan_batches(config));
  const MemoryPlan memory = plan_memory(context.backend(), config);
  const fs::path path = resumed                 ? *resumed
                        : arguments.out.empty() ? default_run_folder(arguments.config)
                                                : fs::path(arguments.out);
  if (resumed)
    check_resumable(read_saved_config(path), config);
  else
    RunFolder::check_replaceable(path, arguments.force);
  check_memory(context.backend(), memory);
  if (arguments.dry_run) return print_plan(arguments, context.backend(), config, memory, data);

  std::optional<RunFolder> folder;
  if (resumed) folder = RunFolder::open(path);
  const StopSignals signals;  // before the first parallel operation makes the team's threads
  Trainer trainer(context.backend(), config, data, kVersion);
  if (!folder) folder = RunFolder::create(path, arguments.force);
  const auto checkpoint = resumed ? folder->latest_checkpoint() : std::nullopt;
  if (checkpoint) trainer.resume(folder->checkpoint_folder(*checkpoint));
  if (trainer.step() > config.train.max_steps)
    throw UsageError(
        fmt::format("train.max_steps is {}, but {} is past that, at step {}: give a larger one",
                    config.train.max_steps, folder->path().string(), trainer.step()));
  write_file(folder->config_file(), write_run_config(config));

  TrainConsole console(folder->log_file(), config.train.max_steps, trainer.tokens_per_step());
  point_latest(*folder, console);
  console.say(fmt::format("{} parameters on {} ({}), {} tokens a step, {} training bytes, into {}",
                          trainer.model().parameters().count(), context.backend().name(),
                          context.backend().detail(), trainer.tokens_per_step(), data.train.size(),
                          folder->path().string()));
  console.say("memory " + describe_memory(memory));
  if (checkpoint)
    console.say(fmt::format("resumed after step {} of {}", trainer.step(), config.train.max_steps));
  else if (resumed)
    console.say("no checkpoint was complete: training starts from the beginning");
  if (trainer.step() >= config.train.max_steps)
    console.say("nothing is left to do; raise the number of steps with --set train.max_steps=N");

  try {
    const TrainSummary summary = trainer.run(*folder, console, signals.stop_requested());
    if (summary.interrupted) context.exit_code = kInterrupted;
    print_summary(arguments, *folder, summary, console);
  } catch (const std::exception& e) {
    console.log_error(e.what());
    throw;
  }
}

}  // namespace

void add_train_command(CLI::App& program, AppContext& context) {
  CLI::App* command = program.add_subcommand("train", "Train a model from a config");
  auto arguments = std::make_shared<TrainArguments>();
  command->add_option("--config", arguments->config,
                      "JSON file with the sections model, data and train");
  command
      ->add_option("--set", arguments->settings,
                   "section.key=value over the config; may be repeated")
      ->allow_extra_args(false);
  command->add_option("--out", arguments->out,
                      "Folder of the run (default: runs/<config name>-<time>)");
  arguments->resume_option =
      command
          ->add_option("--resume", arguments->resume,
                       "Go on with the run in this folder (default: runs/latest)")
          ->expected(0, 1);
  command->add_flag("--force", arguments->force, "Replace the run that --out already holds")
      ->excludes(arguments->resume_option);
  command->add_flag("--dry-run", arguments->dry_run,
                    "Check everything, print sizes, write nothing");
  command->add_flag("--print-config", arguments->print_config,
                    "Print the whole config that would be used");
  command->add_flag("--json", arguments->json, "Print one JSON object at the end");
  context.add_device_options(*command);
  command->footer(
      "The first Ctrl-C (or SIGTERM) finishes the step and writes a checkpoint; a second one ends "
      "at once.");
  command->callback([arguments, &context] { run_train(*arguments, context); });
}

}  // namespace bitnet
