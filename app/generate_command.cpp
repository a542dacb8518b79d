// SPDX-License-Identifier: MIT
// bitnet generate: continues a text, or answers a chat's message. What is written goes to stdout as it
// is made, code point by code point.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>

#include "app/commands.h"
#include "app/model_option.h"
#include "app/standard_streams.h"
#include "core/base/file.h"
#include "core/generate/generator.h"
#include "core/tokenizer/chat_template.h"
#include "core/tokenizer/utf8_stream.h"

namespace bitnet {
namespace {

struct GenerateArguments {
  std::string model = kDefaultModel, head = "int8", kv_cache = "fp16";
  std::string prompt, prompt_file, chat, system;
  CLI::Option* prompt_option = nullptr;
  bool echo = false, ignore_eos = false, special_tokens = false;
  GenerateOptions options;
};

std::string read_prompt(const GenerateArguments& arguments) {
  if (!arguments.prompt_file.empty()) return read_text_file(arguments.prompt_file);
  if (arguments.prompt_option->count() > 0) return arguments.prompt;
  if (stdin_is_terminal())
    write_stderr_line("bitnet: reading the prompt from the terminal; Ctrl-D ends it");
  return read_stdin();
}

// The prompt as the model sees it: with the token that begins a document, or in the words of a chat
// template, whose end tokens are then among those of `options`.
std::vector<std::int32_t> encode_prompt(const GenerateArguments& arguments,
                                        const std::string& prompt, const Tokenizer& tokenizer,
                                        GenerateOptions& options) {
  if (!arguments.chat.empty()) {
    std::vector<ChatMessage> messages;
    if (!arguments.system.empty()) messages.push_back({"system", arguments.system});
    messages.push_back({"user", prompt});
    ChatPrompt chat = make_chat_prompt(tokenizer, arguments.chat, messages);
    options.end_tokens = std::move(chat.end_tokens);
    return std::move(chat.tokens);
  }
  const auto special = arguments.special_tokens ? Tokenizer::SpecialTokens::as_tokens
                                                : Tokenizer::SpecialTokens::as_text;
  std::vector<std::int32_t> tokens = tokenizer.encode(prompt, special);
  const auto start = tokenizer.document_start();
  const bool begun =
      arguments.special_tokens && !tokens.empty() && start && tokens.front() == *start;
  if (start && !begun) tokens.insert(tokens.begin(), *start);
  return tokens;
}

double per_second(std::int64_t tokens, double seconds) {
  return static_cast<double>(tokens) / std::max(seconds, 1e-9);
}

const char* to_text(StopReason reason) {
  switch (reason) {
    case StopReason::stop_string:
      return "at a stop string";
    case StopReason::end_of_document:
      return "at the end of the document";
    case StopReason::length:
      break;
  }
  return "at --max-new-tokens";
}

void run_generate(const GenerateArguments& arguments, AppContext& context) {
  const std::string prompt = read_prompt(arguments);
  const std::unique_ptr<ModelReader> source = open_model_option(arguments.model);
  const std::shared_ptr<const Tokenizer> tokenizer = source->tokenizer();
  GenerateOptions options = arguments.options;
  options.kv_cache = parse_kv_cache(arguments.kv_cache);
  const std::vector<std::int32_t> tokens = encode_prompt(arguments, prompt, *tokenizer, options);
  const std::unique_ptr<Transformer> model = load_model(context.backend(), *source);
  model->use_head(parse_head(arguments.head));
  Generator generator(*model, options, tokenizer);

  bool line_open = false;
  const auto emit = [&](std::string_view bytes) {
    if (bytes.empty()) return;
    write_stdout(bytes);
    line_open = bytes.back() != '\n';
  };
  if (arguments.echo) emit(prompt);
  Utf8Stream text(stdout_is_terminal() ? Utf8Stream::Invalid::replace : Utf8Stream::Invalid::keep);
  std::string first_token;  // for the last line
  const auto take = [&](std::string_view bytes) {
    emit(text.add(bytes));
    if (!first_token.empty()) return;
    const std::chrono::duration<double> since = std::chrono::steady_clock::now() - context.started;
    first_token = fmt::format("first token after {:.2f} s; ", since.count());
  };
  GenerateStats stats;
  try {
    stats = generator.generate(tokens, take);
  } catch (const NonFiniteError& e) {
    throw NonFiniteError(e.what() + kv_cache_suspicion(arguments.kv_cache));
  }
  emit(text.finish());
  if (line_open && stdout_is_terminal()) write_stderr_line("");

  if (stats.dropped_tokens > 0)
    write_stderr_line(fmt::format(
        "bitnet: the prompt is longer than the context of {} tokens; only its last {} were used",
        model->config().max_position_embeddings, stats.prompt_tokens));
  write_stderr_line(fmt::format(
      "bitnet: {}prompt {} tokens, {:.1f} tokens/s; generated {} tokens, {:.1f} tokens/s; stopped "
      "{}",
      first_token, stats.prompt_tokens, per_second(stats.prompt_tokens, stats.prompt_seconds),
      stats.generated_tokens, per_second(stats.generated_tokens, stats.generate_seconds),
      to_text(stats.reason)));
}

}  // namespace

void add_generate_command(CLI::App& program, AppContext& context) {
  CLI::App* command = program.add_subcommand("generate", "Continue a text");
  auto arguments = std::make_shared<GenerateArguments>();
  GenerateOptions& options = arguments->options;
  SamplerOptions& sampler = options.sampler;

  add_model_option(*command, arguments->model);
  add_head_option(*command, arguments->head);
  add_kv_cache_option(*command, arguments->kv_cache);
  arguments->prompt_option =
      command->add_option("PROMPT", arguments->prompt, "The text to continue (default: stdin)");
  command
      ->add_option("--prompt-file", arguments->prompt_file,
                   "Read the prompt from this file, every byte of it")
      ->excludes(arguments->prompt_option);
  command
      ->add_option(
          "--chat", arguments->chat,
          "The prompt is a user's message to a model that was trained on conversations of this "
          "form")
      ->check(CLI::IsMember(chat_template_names()));
  command->add_option("--system", arguments->system, "With --chat: the system's message before it")
      ->needs("--chat");
  command
      ->add_flag(
          "--special", arguments->special_tokens,
          "Names of special tokens in the prompt (<|eot_id|>) are these tokens; else they are "
          "text like any other")
      ->excludes("--chat");
  command->add_flag("--echo", arguments->echo, "Print the prompt too, not only its continuation");
  command
      ->add_option("--max-new-tokens", options.max_new_tokens,
                   "Stop after so many tokens (a token is a byte where the model reads bytes)")
      ->capture_default_str();
  command
      ->add_option("--stop", options.stop,
                   "Stop at this string, which is not printed; may be repeated")
      ->allow_extra_args(false);
  command->add_flag("--ignore-eos", arguments->ignore_eos,
                    "Go on after the end of a document (byte 0) or of a turn");
  command->add_flag("--greedy", sampler.greedy, "Always take the most likely token");
  command->add_option("--temperature", sampler.temperature, "Divides the logits; 0 is --greedy")
      ->capture_default_str();
  command->add_option("--top-k", sampler.top_k, "Only the k most likely tokens; 0: all")
      ->capture_default_str();
  command
      ->add_option("--top-p", sampler.top_p,
                   "Only the most likely tokens that reach this probability; 1: all")
      ->capture_default_str();
  command
      ->add_option("--min-p", sampler.min_p,
                   "Only tokens with this share of the largest probability; 0: all")
      ->capture_default_str();
  command
      ->add_option("--repetition-penalty", sampler.repetition_penalty,
                   fmt::format("Over 1 makes tokens of the last {} less likely", kRepetitionWindow))
      ->capture_default_str();
  command->add_option("--seed", sampler.seed, "The same seed gives the same text")
      ->check([](const std::string& text) {
        return text.starts_with('-') ? text + " is negative; expected 0 or more" : std::string();
      })
      ->capture_default_str();
  context.add_device_options(*command);
  command->footer(
      "When the context is full, its last half is kept and read again from position 0.");
  command->callback([arguments, &context] {
    arguments->options.stop_at_end_of_document = !arguments->ignore_eos;
    run_generate(*arguments, context);
  });
}

}  // namespace bitnet
