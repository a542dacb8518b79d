// SPDX-License-Identifier: MIT
// bitnet train: begins a run from a config, or goes on with one that was stopped.
#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "app/model_option.h"
#include "app/standard_streams.h"
#include "app/stop_signals.h"
#include "app/train_console.h"
#include "app/train_input.h"
#include "app/train_report.h"
#include "app/train_run.h"
#include "app/version.h"
#include "core/base/file.h"
#include "core/checkpoint/run_folder.h"
#include "core/checkpoint/training_state.h"
#include "core/convert/latent_weights.h"
#include "core/data/token_lengths.h"
#include "core/train/trainer.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

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
  if (arguments.resuming) resumed = folder_to_resume(arguments);
  const auto goes_on_from = resumed ? newest_checkpoint(*resumed) : std::nullopt;
  std::shared_ptr<const ModelReader> initial;  // whose weights the run begins with
  const auto open_initial = [&initial](const std::string& model) {
    initial = open_model_option(model);
    return initial->config();
  };
  const auto model_of_run = [&resumed](const std::string&) {
    return read_saved_config(*resumed).model;
  };
  const RunConfig config = read_config(
      arguments, resumed, resumed ? InitialModel(model_of_run) : InitialModel(open_initial));
  if (arguments.print_config) return write_stdout(write_run_config(config));

  if (resumed && !goes_on_from && !config.train.init.empty())
    check_initial_model(open_initial(config.train.init), config.model, config.train.init);
  const auto tokenizer = choose_tokenizer(config, goes_on_from, initial.get());
  const std::unique_ptr<TextData> source = open_data(config, tokenizer);
  const TrainingData data = training_data(*source);
  const BatchLoader check_data(data.train, plan_batches(config));
  const MemoryPlan memory = plan_memory(context.backend(), config);
  const fs::path path =
      resumed ? *resumed
      : arguments.out.empty()
          ? default_run_folder(arguments.config.empty() ? "finetune" : arguments.config)
          : fs::path(arguments.out);
  std::optional<RunConfig> before;  // of the run that is resumed
  if (resumed)
    check_resumable(before.emplace(read_saved_config(path)), config);
  else
    RunFolder::check_replaceable(path, arguments.force);
  check_memory(context.backend(), memory);
  if (arguments.dry_run)
    return print_plan(context.backend(), config, memory, *source, arguments.json);

  std::optional<RunFolder> folder;
  if (resumed) folder = RunFolder::open(path);
  const StopSignals signals;  // before the first parallel operation makes the team's threads
  InitialWeights weights;
  if (initial) weights = [&](Transformer& model) { read_latent_weights(initial, model); };
  Trainer trainer(context.backend(), config, data, kVersion, tokenizer, weights);
  initial.reset();
  if (!folder) folder = RunFolder::create(path, arguments.force);
  std::optional<TrainingState> checkpoint;  // that the run goes on from
  if (const auto step = resumed ? folder->latest_checkpoint() : std::nullopt) {
    const fs::path saved = folder->checkpoint_folder(*step);
    trainer.resume(saved);
    checkpoint = read_training_state(saved);
  }
  if (trainer.step() > config.train.max_steps)
    throw UsageError(
        fmt::format("train.max_steps is {}, but {} is past that, at step {}: give a larger one",
                    config.train.max_steps, folder->path().string(), trainer.step()));
  const bool done = trainer.step() >= config.train.max_steps;
  // A finished run keeps the config that it was trained with.
  if (!done || !before) write_file(folder->config_file(), write_run_config(config));

  TrainConsole console(folder->log_file(), config.train.max_steps, trainer.tokens_per_step(),
                       data.bytes_per_token);
  point_latest(*folder, console);
  console.say(fmt::format("{} parameters on {} ({}), {} tokens a step, {} training {}, into {}",
                          trainer.model().parameters().count(), context.backend().name(),
                          context.backend().detail(), trainer.tokens_per_step(), data.train.size(),
                          reads_bytes(*tokenizer) ? "bytes" : "tokens", folder->path().string()));
  console.say("memory " + describe_memory(memory));
  if (!reads_bytes(*tokenizer)) console.say("tokenizer: " + tokenizer->description());
  if (!checkpoint && !config.train.init.empty())
    console.say("begins with the weights of " + config.train.init);
  if (checkpoint) {
    console.say(fmt::format("resumed after step {} of {}", trainer.step(), config.train.max_steps));
    if (!done) warn_of_changes(*before, config, *checkpoint, context.backend(), console);
  } else if (resumed) {
    console.say("no checkpoint was complete: training starts from the beginning");
  }
  if (done)
    console.say("nothing is left to do; raise the number of steps with --set train.max_steps=N");

  try {
    const TrainSummary summary = trainer.run(*folder, console, signals.stop_requested());
    if (summary.interrupted) context.exit_code = kInterrupted;
    print_summary(*folder, summary, console, arguments.json);
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
  CLI::Option* resume =
      command
          ->add_option("--resume", arguments->resume,
                       "Go on with the run in this folder (default: runs/latest), with its config "
                       "unless --config gives another")
          ->expected(0, 1);
  command
      ->add_option("--init", arguments->init,
                   "Begin with the weights and the tokenizer of this model (whatever eval takes, "
                   "packed ones too); keys of the config's section model may be left out")
      ->excludes(resume);
  command->add_flag("--force", arguments->force, "Replace the run that --out already holds")
      ->excludes(resume);
  command->add_flag("--dry-run", arguments->dry_run,
                    "Check everything, print sizes, write nothing");
  command->add_flag("--print-config", arguments->print_config,
                    "Print the whole config that would be used");
  command->add_flag("--json", arguments->json, "Print one JSON object at the end");
  context.add_device_options(*command);
  command->footer(
      "The first Ctrl-C (or SIGTERM) finishes the step and writes a checkpoint; a second one ends "
      "at once.");
  command->callback([arguments, resume, &context] {
    arguments->resuming = resume->count() > 0;
    run_train(*arguments, context);
  });
}

}  // namespace bitnet
