// SPDX-License-Identifier: MIT
// Runs whose tokens are no bytes, and runs that begin with the weights of another model.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/file.h"
#include "core/checkpoint/model_file.h"
#include "core/convert/latent_weights.h"
#include "core/cpu/cpu_backend.h"
#include "core/data/text_data.h"
#include "core/data/token_lengths.h"
#include "core/tokenizer/byte_alphabet.h"
#include "core/train/schedule.h"
#include "core/train/trainer.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tensors.h"
#include "tests/train/tiny_run.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

// Bytes, some words of tiny_text() and an end of text.
std::shared_ptr<const Tokenizer> word_tokenizer() {
  BpeData data;
  for (int byte = 0; byte < 256; ++byte)
    data.tokens.push_back(byte_character(static_cast<std::uint8_t>(byte)));
  for (const char* merge : {"t h", "th e", "a t", "c at", "s at", "m at", "o n"}) {
    data.merges.emplace_back(merge);
    std::string joined = merge;
    joined.erase(joined.find(' '), 1);
    data.tokens.push_back(joined);
  }
  data.tokens.emplace_back("<|end|>");
  const auto end = static_cast<std::int32_t>(data.tokens.size()) - 1;
  data.special = {end};
  data.bos = data.eos = end;
  data.end_tokens = {end};
  return make_bpe_tokenizer(std::move(data), "test");
}

RunConfig token_run_config() {
  RunConfig config = test::tiny_run_config();
  config.model.vocab_size = 320;  // more than the tokenizer has
  return config;
}

class Watcher final : public TrainObserver {
 public:
  explicit Watcher(std::int64_t stop_after = 0) : stop_after_(stop_after) {}
  void on_step(std::int64_t step, double) override {
    if (step == stop_after_) stop = true;
  }
  void on_train(const TrainMetrics& metrics) override { updates.push_back(metrics); }
  void on_eval(const EvalMetrics& metrics) override { evaluations.push_back(metrics); }
  void on_sample(const SampleMetrics& metrics) override { samples.push_back(metrics); }

  std::atomic<bool> stop = false;
  std::vector<TrainMetrics> updates;
  std::vector<EvalMetrics> evaluations;
  std::vector<SampleMetrics> samples;

 private:
  const std::int64_t stop_after_;
};

// A shard of tiny_text(), and a run over it.
struct TokenRun {
  TokenRun() {
    const std::vector<std::uint8_t> bytes = test::tiny_text();
    const std::string text(bytes.begin(), bytes.end());
    TokenShardWriter writer(folder / "shard", *tokenizer);
    writer.append_text(text);
    writer.commit();
    DataConfig config;
    config.path = (folder / "shard").string();
    data.emplace(config, tokenizer);
  }
  TrainSummary train(const RunConfig& config, const fs::path& path, Watcher& watcher) {
    Trainer trainer(
        *backend, config,
        {data->tokens(DataPart::train), data->tokens(DataPart::valid), data->bytes_per_token()},
        "test", tokenizer);
    const bool resuming = fs::exists(path / "config.json");
    RunFolder run = resuming ? RunFolder::open(path) : RunFolder::create(path, false);
    write_file(run.config_file(), write_run_config(config));
    if (resuming) trainer.resume(run.checkpoint_folder(run.latest_checkpoint().value()));
    return trainer.run(run, watcher, watcher.stop);
  }

  const test::TemporaryFolder folder;
  const std::unique_ptr<Backend> backend = make_cpu_backend(1);
  const std::shared_ptr<const Tokenizer> tokenizer = word_tokenizer();
  std::optional<TextData> data;
};

TEST_CASE("a model trained on a token shard learns it, and its checkpoint has the tokenizer") {
  TokenRun run;
  RunConfig config = token_run_config();
  config.train.max_steps = 60;
  config.train.eval_steps = 60;
  config.train.eval_max_bytes = 0;
  config.train.sample_steps = 60;
  config.train.save_steps = 60;
  Watcher watcher;
  run.train(config, run.folder / "run", watcher);

  const TrainMetrics& first = watcher.updates.front();
  const TrainMetrics& last = watcher.updates.back();
  CHECK(last.loss < first.loss / 2);
  CHECK(last.bits_per_byte == last.loss / std::numbers::ln2 / run.data->bytes_per_token());
  CHECK(run.data->bytes_per_token() > 1.5);
  REQUIRE(watcher.samples.size() == 1);
  CHECK_FALSE(watcher.samples[0].text.empty());

  // What the checkpoint holds is enough to measure the same.
  const auto reader = open_model(run.folder / "run");
  CHECK(reader->tokenizer()->fingerprint() == run.tokenizer->fingerprint());
  const auto model = load_model(*run.backend, *reader);
  const EvalResult result =
      evaluate(*model, EvalText(*reader->tokenizer(), run.data->tokens(DataPart::valid),
                                run.data->bytes(DataPart::valid)));
  REQUIRE(watcher.evaluations.size() == 1);
  CHECK(watcher.evaluations[0].bits_per_byte == result.bits_per_byte);
  CHECK(watcher.evaluations[0].bytes == run.data->bytes(DataPart::valid));
  CHECK(watcher.evaluations[0].loss == result.nats / static_cast<double>(result.tokens));
}

TEST_CASE("an evaluation takes no more tokens than stand for eval_max_bytes") {
  TokenRun run;
  RunConfig config = token_run_config();
  config.train.max_steps = 1;
  Watcher watcher;
  run.train(config, run.folder / "run", watcher);
  REQUIRE(watcher.evaluations.size() == 1);
  CHECK(watcher.evaluations[0].bytes <= 100);
  CHECK(watcher.evaluations[0].bytes > 95);
}

TEST_CASE("a run over tokens that is stopped and resumed equals one that is not") {
  TokenRun run;
  const RunConfig config = token_run_config();
  Watcher whole, stopped(5), rest;
  run.train(config, run.folder / "whole", whole);
  run.train(config, run.folder / "parts", stopped);
  run.train(config, run.folder / "parts", rest);
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "tokenizer.json"})
    CHECK((read_text_file(run.folder / "whole/checkpoint-8" / file) ==
           read_text_file(run.folder / "parts/checkpoint-8" / file)));
}

TEST_CASE("a tokenizer with more ids than the model is refused by the trainer") {
  TokenRun run;
  RunConfig config = token_run_config();
  config.model.vocab_size = 260;
  Watcher watcher;
  CHECK_THROWS_AS(run.train(config, run.folder / "run", watcher), UsageError);
}

TEST_CASE("a checkpoint of a run over bytes holds no tokenizer") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const std::vector<std::uint8_t> text = test::tiny_text();
  RunConfig config = test::tiny_run_config();
  config.train.max_steps = 1;
  Trainer trainer(*backend, config, split_bytes(text, config.data.split), "test");
  RunFolder run = RunFolder::create(folder / "run", false);
  Watcher watcher;
  trainer.run(run, watcher, watcher.stop);
  CHECK_FALSE(fs::exists(folder / "run/checkpoint-1/tokenizer.json"));
}

TEST_CASE("a run begins with the weights it is given, its optimizer fresh, also when warming up") {
  const auto backend = make_cpu_backend(1);
  const std::vector<std::uint8_t> text = test::tiny_text();
  for (const char* linear : {"b158", "b1", "float"}) {
    const test::TemporaryFolder folder;
    RunConfig config = test::tiny_run_config(linear);
    Transformer source(*backend, config.model, WeightForm::latent);
    source.initialize(99);
    save_latent(source, folder / "source");
    const SharedReader reader = open_native(folder / "source");

    if (config.model.linear == "float") config.model.linear = "b158";  // its linears replaced
    config.train.quant_warmup_steps = 6;
    config.train.max_steps = 2;
    Trainer trainer(*backend, config, split_bytes(text, config.data.split), "test",
                    byte_tokenizer(), [&](Transformer& m) { read_latent_weights(reader, m); });
    CHECK(trainer.step() == 0);
    for (const Parameter& p : source.parameters().all())
      CHECK(test::floats_of(*backend, trainer.model().parameters().at(p.spec.name).value) ==
            test::floats_of(*backend, p.value));

    RunFolder run = RunFolder::create(folder / "run", false);
    Watcher watcher;
    trainer.run(run, watcher, watcher.stop);
    REQUIRE(watcher.updates.size() == 2);
    CHECK(watcher.updates[0].quant_amount == 0);
    CHECK(watcher.updates[0].step == 1);
    // The first loss is that of the source as a float model, before any update.
    RunConfig plain = config;
    plain.model.linear = "float";
    plain.train.quant_warmup_steps = 0;
    Trainer floats(*backend, plain, split_bytes(text, config.data.split), "test", byte_tokenizer(),
                   [&](Transformer& m) { read_latent_weights(reader, m); });
    RunFolder float_run = RunFolder::create(folder / "float", false);
    Watcher float_watcher;
    floats.run(float_run, float_watcher, float_watcher.stop);
    CHECK(std::abs(watcher.updates[0].loss - float_watcher.updates[0].loss) <= 1e-5);
  }
}

}  // namespace
}  // namespace bitnet
