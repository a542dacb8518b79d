// SPDX-License-Identifier: MIT
#include "app/train_input.h"

#include <utility>

#include "app/standard_streams.h"
#include "core/base/error.h"
#include "core/data/token_lengths.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

std::shared_ptr<const Tokenizer> named_tokenizer(const RunConfig& config,
                                                 const ModelReader* initial) {
  std::shared_ptr<const Tokenizer> tokenizer = load_tokenizer(config.data.tokenizer);
  if (tokenizer == nullptr)
    throw Error(fmt::format(
        "{}: holds no tokenizer (data.tokenizer); expected a folder with tokenizer.json or "
        "tokenizer.model",
        config.data.tokenizer));
  if (initial == nullptr) return tokenizer;
  // A model of bytes may as well be one whose folder lacks its tokenizer's files.
  const std::shared_ptr<const Tokenizer> of_model = initial->tokenizer();
  if (!reads_bytes(*of_model) && of_model->fingerprint() != tokenizer->fingerprint())
    throw UsageError(fmt::format(
        "data.tokenizer is {} ({}), but the model that the run begins with, {}, was trained with "
        "another one ({}); leave data.tokenizer out to take that",
        config.data.tokenizer, tokenizer->description(), config.train.init,
        of_model->description()));
  return tokenizer;
}

}  // namespace

std::shared_ptr<const Tokenizer> choose_tokenizer(const RunConfig& config,
                                                  const std::optional<fs::path>& checkpoint,
                                                  const ModelReader* initial) {
  std::shared_ptr<const Tokenizer> tokenizer;
  if (checkpoint) tokenizer = load_tokenizer(*checkpoint);
  if (tokenizer == nullptr && !config.data.tokenizer.empty())
    tokenizer = named_tokenizer(config, initial);
  if (tokenizer == nullptr && initial != nullptr) tokenizer = initial->tokenizer();
  if (tokenizer == nullptr) tokenizer = byte_tokenizer();
  config.model.require_token_ids(tokenizer->vocab_size());
  return tokenizer;
}

std::unique_ptr<TextData> open_data(const RunConfig& config,
                                    std::shared_ptr<const Tokenizer> tokenizer) {
  const std::string& path = config.data.path;
  std::error_code ignored;
  if (fs::status(path, ignored).type() == fs::file_type::not_found)
    throw Error(fmt::format(
        "{}: there is no such data file; fetch one with scripts/get_data.sh, or name yours with "
        "--set data.path=FILE",
        path));
  if (config.data.tokenizer.empty() && reads_bytes(*tokenizer) && TokenShard::is_shard(path)) {
    const TokenShard shard(path);
    if (shard.fingerprint() != tokenizer->fingerprint())
      throw UsageError(
          fmt::format("{} is a token shard, made by {}; name the folder of that tokenizer with "
                      "--set data.tokenizer=DIR",
                      path, shard.tokenizer()));
  }
  auto data = std::make_unique<TextData>(config.data, std::move(tokenizer));
  if (data->encodes()) {
    write_stderr_line(fmt::format(
        "bitnet: encoding {} bytes of text in memory; bitnet tokenize does that once for all runs",
        data->size(DataPart::train) + data->size(DataPart::valid)));
  }
  return data;
}

TrainingData training_data(TextData& data) {
  return {data.tokens(DataPart::train), data.tokens(DataPart::valid), data.bytes_per_token()};
}

}  // namespace bitnet
