// SPDX-License-Identifier: MIT
// bitnet tokenize: text to token ids, ids to text, and files to a token shard that training reads.
#include <CLI/CLI.hpp>
#include <charconv>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/model_option.h"
#include "app/standard_streams.h"
#include "core/base/error.h"
#include "core/convert/model_reader.h"
#include "core/data/byte_source.h"
#include "core/data/token_shard.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/utf8_stream.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct TokenizeArguments {
  std::string tokenizer = kDefaultModel, output;
  std::vector<std::string> inputs;
  bool decode = false, special = false, json = false, force = false;
};

// A folder with a tokenizer need not hold a model.
std::shared_ptr<const Tokenizer> open_tokenizer(const std::string& path) {
  if (path == "bytes") return byte_tokenizer();
  if (fs::is_directory(path)) {
    if (auto tokenizer = load_tokenizer(path)) return tokenizer;
  } else if (fs::path(path).extension() == ".model") {
    return load_sentencepiece(path);
  }
  return open_model(path)->tokenizer();
}

// The text or the ids of the command line, or else all of stdin.
std::string read_input(const TokenizeArguments& arguments, const char* what) {
  if (!arguments.inputs.empty()) return fmt::format("{}", fmt::join(arguments.inputs, " "));
  if (stdin_is_terminal())
    write_stderr_line(fmt::format("bitnet: reading {} from the terminal; Ctrl-D ends it", what));
  return read_stdin();
}

ordered_json tokenizer_json(const Tokenizer& tokenizer) {
  return {{"tokenizer", tokenizer.description()},
          {"vocab_size", tokenizer.vocab_size()},
          {"fingerprint", tokenizer.fingerprint()}};
}

void encode_text(const TokenizeArguments& arguments, const Tokenizer& tokenizer) {
  if (arguments.inputs.size() > 1)
    throw UsageError(
        "expected one text; put it in quotes, or name a shard for these files with -o");
  const std::string text = read_input(arguments, "the text");
  const auto ids = tokenizer.encode(text, arguments.special ? Tokenizer::SpecialTokens::as_tokens
                                                            : Tokenizer::SpecialTokens::as_text);
  if (!arguments.json) return write_stdout(fmt::format("{}\n", fmt::join(ids, " ")));
  ordered_json object = tokenizer_json(tokenizer);
  object["bytes"] = text.size();
  object["tokens"] = ids;
  object["names"] = ordered_json::array();
  for (const std::int32_t id : ids) object["names"].push_back(tokenizer.token_name(id));
  write_json_line(object);
}

std::vector<std::int32_t> parse_ids(std::string_view text, const Tokenizer& tokenizer) {
  constexpr std::string_view kSeparators = " \t\r\n,";
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; (i = text.find_first_not_of(kSeparators, i)) < text.size();) {
    const std::string_view word = text.substr(i, text.find_first_of(kSeparators, i) - i);
    std::int64_t id = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc{} || end != word.data() + word.size() || id < 0 ||
        id >= tokenizer.vocab_size())
      throw UsageError(fmt::format("'{}' is not a token id; expected 0 to {}", word,
                                   tokenizer.vocab_size() - 1));
    ids.push_back(static_cast<std::int32_t>(id));
    i += word.size();
  }
  return ids;
}

void decode_ids(const TokenizeArguments& arguments, const Tokenizer& tokenizer) {
  const auto ids = parse_ids(read_input(arguments, "token ids"), tokenizer);
  const std::string bytes = tokenizer.decode(ids);
  // A pipe gets the very bytes, which a terminal or a JSON string cannot show.
  const bool exact = !arguments.json && !stdout_is_terminal();
  Utf8Stream stream(exact ? Utf8Stream::Invalid::keep : Utf8Stream::Invalid::replace);
  std::string text = stream.add(bytes);
  text += stream.finish();
  if (!arguments.json) {
    write_stdout(text);
    if (!exact && !text.ends_with('\n')) write_stdout("\n");
    return;
  }
  ordered_json object = tokenizer_json(tokenizer);
  object["bytes"] = bytes.size();
  object["text"] = text;
  write_json_line(object);
}

void write_shard(const TokenizeArguments& arguments, const Tokenizer& tokenizer) {
  if (arguments.inputs.empty()) throw UsageError("expected the files to make a shard of");
  if (fs::exists(arguments.output) && !arguments.force)
    throw UsageError(
        fmt::format("{} is there already; use --force to replace it", arguments.output));
  TokenShardWriter shard(arguments.output, tokenizer);
  for (const std::string& path : arguments.inputs) {
    const ByteSource source(path);
    ProgressLine progress;
    const std::string_view text(reinterpret_cast<const char*>(source.bytes().data()),
                                source.bytes().size());
    shard.append_text(text, [&](std::size_t done) {
      progress.show(fmt::format("{}: {} of {} bytes, {} tokens in all", path, done, text.size(),
                                shard.tokens()));
    });
  }
  shard.commit();
  const double bytes_per_token =
      static_cast<double>(shard.text_bytes()) / static_cast<double>(shard.tokens());
  if (arguments.json) {
    ordered_json object = tokenizer_json(tokenizer);
    object["shard"] = arguments.output;
    object["documents"] = shard.documents();
    object["bytes"] = shard.text_bytes();
    object["tokens"] = shard.tokens();
    return write_json_line(object);
  }
  write_stdout(fmt::format("{}: {} tokens of {} documents, {} bytes ({:.3f} bytes a token)\n",
                           arguments.output, shard.tokens(), shard.documents(), shard.text_bytes(),
                           bytes_per_token));
}

void run_tokenize(const TokenizeArguments& arguments) {
  const std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer(arguments.tokenizer);
  if (!arguments.output.empty()) {
    write_shard(arguments, *tokenizer);
  } else if (arguments.decode) {
    decode_ids(arguments, *tokenizer);
  } else {
    encode_text(arguments, *tokenizer);
  }
}

}  // namespace

void add_tokenize_command(CLI::App& program, AppContext&) {
  CLI::App* command = program.add_subcommand(
      "tokenize", "Text to token ids and back, and files to a token shard for training");
  auto arguments = std::make_shared<TokenizeArguments>();
  command->add_option("INPUT", arguments->inputs,
                      "The text, or with --decode the ids (default: stdin); with -o the files");
  command
      ->add_option("--tokenizer", arguments->tokenizer,
                   "A folder with tokenizer.json or tokenizer.model, a model, or \"bytes\"")
      ->capture_default_str();
  CLI::Option* decode =
      command->add_flag("--decode", arguments->decode, "Token ids to text; special tokens to none");
  CLI::Option* special = command->add_flag(
      "--special", arguments->special,
      "Take the names of special tokens (<|eot_id|>) in the text as those tokens");
  special->excludes(decode);
  command
      ->add_option("-o,--output", arguments->output,
                   "Write the tokens of the files to this shard (.safetensors)")
      ->excludes(decode)
      ->excludes(special);
  command->add_flag("--force", arguments->force, "Replace a shard that is there");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->footer(
      "In a shard, the token that begins a text (or ends the one before) precedes each document: "
      "each file, and in a file\neach part between two bytes 0. Files may be gzip.");
  command->callback([arguments] { run_tokenize(*arguments); });
}

}  // namespace bitnet
