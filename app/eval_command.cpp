// SPDX-License-Identifier: MIT
// bitnet eval: bits per byte of a text under a model.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "app/commands.h"
#include "app/model_option.h"
#include "app/standard_streams.h"
#include "core/base/safetensors.h"
#include "core/convert/model_reader.h"
#include "core/data/text_data.h"
#include "core/data/token_lengths.h"
#include "core/eval/bits_per_byte.h"

namespace bitnet {
namespace {

struct EvalArguments {
  std::string model = kDefaultModel;
  std::string data;
  std::string split = "test";
  std::string head = "fp32", kv_cache = "fp32";  // a measurement, not a way to save time
  bool json = false;
  std::string logits;  // file to write them to
  EvalOptions options;
};

void write_logits(const std::filesystem::path& file, const TextLogits& text) {
  const auto length = static_cast<std::int64_t>(text.inputs.size()),
             vocabulary = static_cast<std::int64_t>(text.logits.size()) / length;
  const std::array<TensorToWrite, 2> tensors = {
      {{.name = "logits",
        .dtype = "F32",
        .shape = {length, vocabulary},
        .bytes = text.logits.data()},
       {.name = "inputs", .dtype = "I32", .shape = {length}, .bytes = text.inputs.data()}}};
  write_safetensors(file, tensors, {});
}

// The data and its split: from the config of the model's run, with --data in place of its path.
DataConfig choose_data(const EvalArguments& arguments, const ModelReader& reader) {
  std::optional<DataConfig> of_run;
  if (arguments.data.empty() || arguments.split != "all") of_run = find_run_data(reader);
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

DataPart parse_split(const std::string& name) {
  if (name == "all") return DataPart::all;
  return name == "train" ? DataPart::train : name == "valid" ? DataPart::valid : DataPart::test;
}

// What evaluate() scores of the data.
EvalText choose_text(TextData& data, DataPart part, const Tokenizer& tokenizer,
                     const EvalArguments& arguments, const DataConfig& config) {
  if (data.size(part) == 0)
    throw UsageError(
        fmt::format("the {} split of {} is empty (data.split is [{}]); choose another with --split",
                    arguments.split, config.path, fmt::join(config.split, ", ")));
  const TokenSpan tokens = data.tokens(part);
  return {tokenizer, tokens, data.bytes(part)};
}

void run_eval(const EvalArguments& arguments, AppContext& context) {
  const std::unique_ptr<ModelReader> reader = open_model_option(arguments.model);
  const DataConfig config = choose_data(arguments, *reader);
  const std::shared_ptr<const Tokenizer> tokenizer = reader->tokenizer();
  TextData data(config, tokenizer);
  const EvalText text =
      choose_text(data, parse_split(arguments.split), *tokenizer, arguments, config);
  const std::unique_ptr<Transformer> model = load_model(context.backend(), *reader);
  model->use_head(parse_head(arguments.head));

  EvalOptions options = arguments.options;
  options.kv_cache = parse_kv_cache(arguments.kv_cache);
  options.context = model->config().max_position_embeddings;
  if (options.stride == 0) options.stride = std::max<std::int64_t>(1, options.context / 2);
  const bool bytes = reads_bytes(*tokenizer);
  EvalResult result;
  {
    ProgressLine progress;
    options.progress = [&](std::int64_t done) {
      progress.show(fmt::format(
          "{} of {} {} ({:.1f} %)", done, text.tokens.size(), bytes ? "bytes" : "tokens",
          100.0 * static_cast<double>(done) / static_cast<double>(text.tokens.size())));
    };
    result = evaluate(*model, text, options);
  }
  if (!std::isfinite(result.nats))
    throw NonFiniteError(fmt::format(
        "the loss of the model is not finite: its weights are damaged or its training diverged{}",
        kv_cache_suspicion(arguments.kv_cache)));

  if (!arguments.logits.empty())
    write_logits(arguments.logits, first_logits(*model, text, options.kv_cache));

  const char* form = model->parameters().form() == WeightForm::packed ? "packed" : "latent";
  if (arguments.json) {
    const nlohmann::ordered_json object = {
        {"model", arguments.model},
        {"form", form},
        {"head", arguments.head},
        {"kv_cache", arguments.kv_cache},
        {"tokenizer", tokenizer->description()},
        {"data", config.path},
        {"split", arguments.split},
        {"context", options.context},
        {"stride", options.stride},
        {"bytes", result.bytes},
        {"tokens", result.tokens},
        {"bits_per_byte", result.bits_per_byte},
        {"nats_per_byte", result.nats / static_cast<double>(result.bytes)},
        {"perplexity", result.perplexity},
        {"seconds", result.seconds},
        {"tokens_per_second", result.tokens_per_second}};
    write_json_line(object);
  } else {
    const std::string tokens = bytes ? "" : fmt::format("  tokens {}", result.tokens);
    const std::string by = bytes ? "" : fmt::format("{}, ", tokenizer->description());
    write_stdout(fmt::format(
        "bits/byte {:.6f}  perplexity {:.4f}  bytes {}{}  tokens/s {:.0f}  ({} model, {}{} "
        "head, {} keys and values, {} split of {}, context {}, stride {})\n",
        result.bits_per_byte, result.perplexity, result.bytes, tokens, result.tokens_per_second,
        form, by, arguments.head, arguments.kv_cache, arguments.split, config.path, options.context,
        options.stride));
  }
}

}  // namespace

void add_eval_command(CLI::App& program, AppContext& context) {
  CLI::App* command = program.add_subcommand(
      "eval", "Measure bits per byte: every token of a split once, with context");
  auto arguments = std::make_shared<EvalArguments>();
  add_model_option(*command, arguments->model);
  add_head_option(*command, arguments->head);
  add_kv_cache_option(*command, arguments->kv_cache);
  command->add_option(
      "--data", arguments->data,
      "Text, or a token shard of the model's tokenizer, to score (default: data.path of the "
      "model's run)");
  command
      ->add_option("--split", arguments->split,
                   "train, valid, test or all, cut as data.split of the model's run says")
      ->check(CLI::IsMember({"train", "valid", "test", "all"}))
      ->capture_default_str();
  command
      ->add_option("--stride", arguments->options.stride,
                   "Tokens scored by a window: fewer is slower and gives each token more context "
                   "(default: half of it)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--batch", arguments->options.batch,
                   "Windows computed at once; changes no result")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--logits", arguments->logits,
                      "Also write the logits of the first window (at most 1024 tokens) and the "
                      "tokens that the model saw "
                      "into this .safetensors file, to compare with other programs");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer(
      "A token of a model that reads bytes is a byte. Bits per byte = nats of all tokens / ln 2 / "
      "bytes of the text;\nthe perplexity is that of a token.");
  context.add_device_options(*command);
  command->callback([arguments, &context] { run_eval(*arguments, context); });
}

}  // namespace bitnet
