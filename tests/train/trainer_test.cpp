// SPDX-License-Identifier: MIT
#include "core/train/trainer.h"

#include <algorithm>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/file.h"
#include "core/checkpoint/model_file.h"
#include "core/checkpoint/training_state.h"
#include "core/cpu/cpu_backend.h"
#include "core/eval/bits_per_byte.h"
#include "tests/support/catch.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_folder.h"
#include "tests/train/forwarding_backend.h"
#include "tests/train/tiny_run.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

// Remembers evaluations; raises the stop flag after a step.
class Watcher final : public TrainObserver {
 public:
  explicit Watcher(std::int64_t stop_after = 0) : stop_after_(stop_after) {}
  void on_step(std::int64_t step, double) override {
    if (step == stop_after_) stop = true;
  }
  void on_eval(const EvalMetrics& metrics) override { evaluations.push_back(metrics); }

  std::atomic<bool> stop = false;
  std::vector<EvalMetrics> evaluations;

 private:
  const std::int64_t stop_after_;
};

const std::vector<std::uint8_t>& text() {
  static const std::vector<std::uint8_t> bytes = test::tiny_text();
  return bytes;
}

DataSplits data() { return split_bytes(text(), {0.9, 0.05, 0.05}); }

// Begins a run in `folder`, or goes on with the one that is there.
TrainSummary train(Backend& backend, const RunConfig& config, const fs::path& path,
                   Watcher& watcher) {
  Trainer trainer(backend, config, data(), "test");
  const bool resuming = fs::exists(path / "config.json");
  RunFolder folder = resuming ? RunFolder::open(path) : RunFolder::create(path, false);
  write_file(folder.config_file(), write_run_config(config));
  if (resuming) trainer.resume(folder.checkpoint_folder(folder.latest_checkpoint().value()));
  return trainer.run(folder, watcher, watcher.stop);
}

TrainSummary train(Backend& backend, const RunConfig& config, const fs::path& path) {
  Watcher watcher;
  return train(backend, config, path, watcher);
}

// metrics.jsonl without what depends on the clock.
std::string metrics_of(const fs::path& run) {
  std::istringstream lines(read_text_file(run / "metrics.jsonl"));
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    auto event = nlohmann::ordered_json::parse(line);
    event.erase("timing");
    kept += event.dump() + "\n";
  }
  return kept;
}

void check_same_run(const fs::path& a, const fs::path& b, std::int64_t step) {
  const std::string checkpoint = "checkpoint-" + std::to_string(step);
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "trainer_state.json"}) {
    INFO(file);
    CHECK((read_text_file(a / checkpoint / file) == read_text_file(b / checkpoint / file)));
  }
  CHECK(metrics_of(a) == metrics_of(b));
}

RunConfig config_for_resume(const std::string& kind) {
  RunConfig config = test::tiny_run_config(kind == "warming up" ? "b158" : kind);
  if (kind == "warming up") config.train.quant_warmup_steps = 6;
  config.model.dropout = 0.1;
  config.train.gradient_accumulation_steps = 2;
  return config;
}

TEST_CASE("a run that is stopped and resumed equals one that is not, bit for bit") {
  const RunConfig config = config_for_resume(GENERATE("b158", "b1", "float", "warming up"));
  const auto backend = make_cpu_backend(1);
  const test::TemporaryFolder folder;
  CHECK(train(*backend, config, folder / "whole").step == 8);

  Watcher stopper(5);
  const TrainSummary first = train(*backend, config, folder / "parts", stopper);
  CHECK(first.interrupted);
  CHECK(first.step == 5);
  CHECK(is_complete_checkpoint(folder / "parts/checkpoint-5"));
  CHECK_FALSE(train(*backend, config, folder / "parts").interrupted);
  check_same_run(folder / "whole", folder / "parts", 8);
}

TEST_CASE("a run that is killed after its last checkpoint loses only what came later") {
  const RunConfig config = config_for_resume("b158");
  const auto backend = make_cpu_backend(1);
  const test::TemporaryFolder folder;
  train(*backend, config, folder / "whole");
  // What a kill after step 7 leaves behind: metrics up to 7, half a line, a checkpoint half
  // written.
  fs::copy(folder / "whole", folder / "killed",
           fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::remove_all(folder / "killed/checkpoint-8/COMPLETE");
  fs::rename(folder / "killed/checkpoint-8", folder / "killed/tmp-checkpoint-8");
  point_to(folder / "killed/latest", folder / "killed/checkpoint-4");
  std::string metrics = read_text_file(folder / "killed/metrics.jsonl");
  metrics.resize(metrics.size() - 10);
  write_file(folder / "killed/metrics.jsonl", metrics);

  train(*backend, config, folder / "killed");
  check_same_run(folder / "whole", folder / "killed", 8);
}

TEST_CASE("one thread and two threads train the same bits") {
  const RunConfig config = config_for_resume("b158");
  const test::TemporaryFolder folder;
  train(*make_cpu_backend(1), config, folder / "one");
  train(*make_cpu_backend(2), config, folder / "two");
  check_same_run(folder / "one", folder / "two", 8);
}

TEST_CASE("training lowers the loss, and its events are at their intervals") {
  RunConfig config = test::tiny_run_config();
  config.train.max_steps = 30;
  config.train.logging_steps = 10;
  config.train.eval_steps = 12;
  config.train.save_steps = 20;
  config.train.sample_steps = 15;
  const auto backend = make_cpu_backend(2);
  const test::TemporaryFolder folder;
  const TrainSummary summary = train(*backend, config, folder / "run");
  CHECK(summary.step == 30);
  CHECK(summary.tokens == 30 * 32);

  std::istringstream lines(read_text_file(folder / "run/metrics.jsonl"));
  std::string events;
  double first_loss = 0, last_loss = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    const std::string name = event["event"];
    events += fmt::format("{}{} ", name[0], event["step"].get<int>());
    if (name == "sample") CHECK(event["prompt"] == "The ");
    if (name != "train") continue;
    if (first_loss == 0) first_loss = event["loss"];
    last_loss = event["loss"];
    REQUIRE(event["projections"].size() == 14);
    for (const auto& [projection, values] : event["projections"].items()) {
      const double shares = values["minus"].get<double>() + values["zero"].get<double>() +
                            values["plus"].get<double>();
      CHECK(std::abs(shares - 1) <= 1e-15);
      CHECK(values["weight_scale"] > 0.0);
      CHECK(values["flips"] >= 0);
    }
  }
  CHECK(events == "t1 t10 e12 s15 t20 e24 t30 e30 s30 ");
  CHECK(last_loss < first_loss - 1);
  CHECK(summary.loss == last_loss);
  CHECK(is_complete_checkpoint(folder / "run/checkpoint-20"));
  CHECK(is_complete_checkpoint(folder / "run/checkpoint-30"));
}

TEST_CASE("an evaluation is that of the checkpoint of its step, also while quantisation warms up") {
  RunConfig config = config_for_resume("warming up");
  config.train.eval_steps = 4;
  const auto backend = make_cpu_backend(1);
  const test::TemporaryFolder folder;
  Watcher watcher;
  train(*backend, config, folder / "run", watcher);
  REQUIRE(watcher.evaluations.size() == 2);
  for (const EvalMetrics& metrics : watcher.evaluations) {
    const auto model =
        load_model(*backend, folder / ("run/checkpoint-" + std::to_string(metrics.step)));
    const EvalResult result = evaluate(*model, data().valid.first(100));
    CHECK(result.bits_per_byte == metrics.bits_per_byte);
    CHECK(metrics.bytes == 100);
  }
}

TEST_CASE("`best` leads to the checkpoint of the lowest evaluation, whatever others were lower") {
  RunConfig config = test::tiny_run_config();
  config.train.learning_rate = 1;  // it gets worse and worse
  config.train.eval_steps = 1;
  config.train.save_total_limit = 1;
  const auto backend = make_cpu_backend(1);
  const test::TemporaryFolder folder;
  Watcher watcher;
  train(*backend, config, folder / "run", watcher);
  REQUIRE(watcher.evaluations.size() == 8);
  const auto value = [&](std::size_t step) { return watcher.evaluations[step - 1].bits_per_byte; };
  REQUIRE(std::min({value(1), value(2), value(3)}) < std::min(value(4), value(8)));
  const std::int64_t best = value(8) < value(4) ? 8 : 4;
  const auto target = pointed_path(folder / "run/best");
  REQUIRE(target);
  CHECK(target->filename() == "checkpoint-" + std::to_string(best));
  CHECK(read_training_state(folder / "run/checkpoint-8").best_bits_per_byte ==
        std::min(value(4), value(8)));
}

TEST_CASE("an update is saved before the failure of what comes after it ends the run") {
  class Failing final : public TrainObserver {
    void on_eval(const EvalMetrics&) override { throw std::bad_alloc(); }
  } failing;
  const RunConfig config = test::tiny_run_config();
  const auto backend = make_cpu_backend(1);
  const test::TemporaryFolder folder;
  {
    Trainer trainer(*backend, config, data(), "test");
    RunFolder run = RunFolder::create(folder / "run", false);
    write_file(run.config_file(), write_run_config(config));
    const std::atomic<bool> stop = false;
    CHECK_THROWS_AS(trainer.run(run, failing, stop), std::bad_alloc);
  }
  CHECK(is_complete_checkpoint(folder / "run/checkpoint-3"));
  CHECK(train(*backend, config, folder / "run").step == 8);
}

TEST_CASE("a checkpoint that is complete is not said to have failed when `best` cannot be made") {
  const RunConfig config = test::tiny_run_config();
  const auto backend = make_cpu_backend(1);
  const test::TemporaryFolder folder;
  Trainer trainer(*backend, config, data(), "test");
  RunFolder run = RunFolder::create(folder / "run", false);
  make_folders(run.path() / "best");  // in the way of the link
  Watcher watcher;
  std::string message;
  try {
    trainer.run(run, watcher, watcher.stop);
  } catch (const Error& e) {
    message = e.what();
  }
  INFO(message);
  CHECK(message.find("checkpoint-8 is complete") != std::string::npos);
  CHECK(message.find("cannot write") == std::string::npos);
  CHECK(run.latest_checkpoint() == 8);
}

TEST_CASE("a model with more token ids than bytes trains, is evaluated and samples bytes") {
  RunConfig config = test::tiny_run_config();
  config.model.vocab_size = 320;
  const auto backend = make_cpu_backend(1);
  const test::TemporaryFolder folder;
  Watcher watcher;
  CHECK(train(*backend, config, folder / "run", watcher).step == 8);
  CHECK(watcher.evaluations.size() == 3);
  CHECK(metrics_of(folder / "run").find("sample") != std::string::npos);
}

TEST_CASE("a run that diverges stops, names the last good checkpoint and saves nothing of it") {
  const auto cpu = make_cpu_backend(1);
  test::PoisonedGradientBackend backend(*cpu, std::numeric_limits<float>::quiet_NaN(), 7);
  const test::TemporaryFolder folder;
  std::string message;
  try {
    train(backend, test::tiny_run_config(), folder / "run");
  } catch (const Error& e) {
    message = e.what();
  }
  INFO(message);
  CHECK(message.find("step 7: the gradient of model.embed_tokens.weight is not finite") !=
        std::string::npos);
  CHECK(message.find("checkpoint-4") != std::string::npos);
  CHECK(RunFolder::open(folder / "run").list_checkpoints() == std::vector<std::int64_t>{4});
}

TEST_CASE("a full disk loses no earlier checkpoint and leaves no half of a new one") {
  RunConfig config = test::tiny_run_config();
  config.train.max_steps = 4;
  const auto backend = make_cpu_backend(1);
  const test::TemporaryFolder folder;
  train(*backend, config, folder / "run");
  const std::string before = read_text_file(folder / "run/checkpoint-4/model.safetensors");

  config.train.max_steps = 6;
  std::string message;
  {
    const test::FileSizeLimit full(before.size() / 2);
    try {
      train(*backend, config, folder / "run");
    } catch (const Error& e) {
      message = e.what();
    }
  }
  INFO(message);
  CHECK(message.find("cannot write the checkpoint of step 6") != std::string::npos);
  CHECK(message.find("checkpoint-4") != std::string::npos);
  CHECK_FALSE(fs::exists(folder / "run/tmp-checkpoint-6"));
  CHECK((read_text_file(folder / "run/checkpoint-4/model.safetensors") == before));
  CHECK(train(*backend, config, folder / "run").step == 6);
}

TEST_CASE("a stop before the first step trains nothing and writes no checkpoint") {
  const auto backend = make_cpu_backend(1);
  const test::TemporaryFolder folder;
  Watcher watcher;
  watcher.stop = true;
  const TrainSummary summary = train(*backend, test::tiny_run_config(), folder / "run", watcher);
  CHECK(summary.interrupted);
  CHECK(summary.step == 0);
  CHECK(RunFolder::open(folder / "run").list_checkpoints().empty());
}

TEST_CASE("the planned memory is what a run allocates") {
  const auto cpu = make_cpu_backend(1);
  RunConfig config = config_for_resume(GENERATE("b158", "b1", "float", "warming up"));
  config.model.weight_group_size = GENERATE(0, 64);
  if (config.model.linear != "b158") config.model.weight_group_size = 0;
  const MemoryPlan planned = plan_memory(*cpu, config);
  const Trainer trainer(*cpu, config, data(), "test");
  const MemoryPlan allocated = trainer.memory();
  CHECK(planned.weights == allocated.weights);
  CHECK(planned.optimizer == allocated.optimizer);
  CHECK(planned.activations == allocated.activations);
  CHECK(planned.evaluation > 0);
}

}  // namespace
}  // namespace bitnet
