// SPDX-License-Identifier: MIT
// bitnet eval: bits per byte of a text under a model.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "app/commands.h"
#include "app/model_option.h"
#include "app/standard_streams.h"
#include "core/checkpoint/model_file.h"
#include "core/data/byte_source.h"
#include "core/data/data_config.h"
#include "core/eval/bits_per_byte.h"

namespace bitnet {
namespace {

struct EvalArguments {
  std::string model = kDefaultModel;
  std::string data;
  std::string split = "test";
  std::string head = "fp32";  // a measurement, not a way to save time
  bool json = false;
  EvalOptions options;
};

// The data and its split: from the config of the model's run, with --data in place of its path.
DataConfig choose_data(const EvalArguments& arguments, const ModelSource& source) {
  std::optional<DataConfig> of_run;
  if (arguments.data.empty() || arguments.split != "all") of_run = find_run_data(source);
  if (arguments.data.empty()) {
    if (!of_run)
      throw UsageError(
          fmt::format("{} does not say which data its model was trained on; give --data FILE",
                      arguments.model));
    return *of_run;
  }
  DataConfig data = of_run.value_or(DataConfig());
  data.path = arguments.data;
  if (!of_run && arguments.split != "all")
    write_stderr_line(fmt::format("bitnet: the run of {} is not known; its data is cut as [{}]",
                                  arguments.model, fmt::join(data.split, ", ")));
  return data;
}

std::span<const std::uint8_t> choose_split(std::span<const std::uint8_t> bytes,
                                           const DataConfig& data, const std::string& name) {
  if (name == "all") return bytes;
  const DataSplits splits = split_bytes(bytes, data.split);
  const auto chosen = name == "train" ? splits.train : name == "valid" ? splits.valid : splits.test;
  if (chosen.empty())
    throw UsageError(
        fmt::format("the {} split of {} is empty (data.split is [{}]); choose another with --split",
                    name, data.path, fmt::join(data.split, ", ")));
  return chosen;
}

void run_eval(const EvalArguments& arguments, AppContext& context) {
  const ModelSource source = resolve_model(arguments.model);
  const DataConfig data = choose_data(arguments, source);
  const ByteSource bytes(data.path);
  const auto text = choose_split(bytes.bytes(), data, arguments.split);
  const std::unique_ptr<Transformer> model = load_model(context.backend(), source.file);
  model->use_head(parse_head(arguments.head));

  EvalOptions options = arguments.options;
  options.context = model->config().max_position_embeddings;
  if (options.stride == 0) options.stride = std::max<std::int64_t>(1, options.context / 2);
  EvalResult result;
  {
    ProgressLine progress;
    options.progress = [&](std::int64_t done) {
      progress.show(
          fmt::format("{} of {} bytes ({:.1f} %)", done, text.size(),
                      100.0 * static_cast<double>(done) / static_cast<double>(text.size())));
    };
    result = evaluate(*model, text, options);
  }

  const char* form = model->parameters().form() == WeightForm::packed ? "packed" : "latent";
  if (arguments.json) {
    const nlohmann::ordered_json object = {
        {"model", arguments.model},
        {"form", form},
        {"head", arguments.head},
        {"data", data.path},
        {"split", arguments.split},
        {"context", options.context},
        {"stride", options.stride},
        {"bytes", result.bytes},
        {"bits_per_byte", result.bits_per_byte},
        {"nats_per_byte", result.nats / static_cast<double>(result.bytes)},
        {"perplexity", result.perplexity},
        {"seconds", result.seconds},
        {"tokens_per_second", result.tokens_per_second}};
    write_json_line(object);
  } else {
    write_stdout(fmt::format(
        "bits/byte {:.6f}  perplexity {:.4f}  bytes {}  tokens/s {:.0f}  ({} model, {} "
        "head, {} split of {}, context {}, stride {})\n",
        result.bits_per_byte, result.perplexity, result.bytes, result.tokens_per_second, form,
        arguments.head, arguments.split, data.path, options.context, options.stride));
  }
}

}  // namespace

void add_eval_command(CLI::App& program, AppContext& context) {
  CLI::App* command = program.add_subcommand(
      "eval", "Measure bits per byte: every byte of a split once, with context");
  auto arguments = std::make_shared<EvalArguments>();
  add_model_option(*command, arguments->model);
  add_head_option(*command, arguments->head);
  command->add_option("--data", arguments->data,
                      "Text to score (default: data.path of the model's run)");
  command
      ->add_option("--split", arguments->split,
                   "train, valid, test or all, cut as data.split of the model's run says")
      ->check(CLI::IsMember({"train", "valid", "test", "all"}))
      ->capture_default_str();
  command
      ->add_option("--stride", arguments->options.stride,
                   "Bytes scored by a window: fewer is slower and gives each byte more context "
                   "(default: half of it)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--batch", arguments->options.batch,
                   "Windows computed at once; changes no result")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object");
  context.add_device_options(*command);
  command->callback([arguments, &context] { run_eval(*arguments, context); });
}

}  // namespace bitnet
