// SPDX-License-Identifier: MIT
#include "core/train/metrics_log.h"

#include <fstream>

#include "core/base/error.h"
#include "core/base/file.h"
#include "tests/support/catch.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_folder.h"

namespace bitnet {
namespace {

EvalMetrics evaluation(std::int64_t step) {
  EvalMetrics metrics;
  metrics.step = step;
  metrics.bits_per_byte = 2.5;
  return metrics;
}

TEST_CASE("a metrics line keeps what depends on the clock apart") {
  TrainMetrics metrics;
  metrics.step = 3;
  metrics.loss = 0.1;
  metrics.projections = {{"q_proj", 0.25, 0.5, 0.25, 7, 0.125}};
  metrics.tokens_per_second = 1000;
  metrics.seconds = 2;
  CHECK(
      to_json_line(metrics) ==
      R"({"event":"train","step":3,"tokens":0,"loss":0.1,"bits_per_byte":0.0,"learning_rate":0.0,)"
      R"("weight_decay":0.0,"grad_norm":0.0,"quant_amount":1.0,"projections":{"q_proj":)"
      R"({"minus":0.25,"zero":0.5,"plus":0.25,"flips":7,"weight_scale":0.125}},)"
      R"("timing":{"tokens_per_second":1000.0,"seconds":2.0}})");
}

TEST_CASE("a sample of any bytes becomes one line of valid JSON") {
  const std::string line = to_json_line(SampleMetrics{1, "a", "\xff\n\x01"});
  CHECK(line ==
        "{\"event\":\"sample\",\"step\":1,\"prompt\":\"a\",\"text\":\"\xEF\xBF\xBD\\n\\u0001\"}");
}

TEST_CASE("a resumed log drops later steps and a line cut off by a crash, and goes on") {
  const test::TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  {
    MetricsLog log(path, 0);
    for (const std::int64_t step : {10, 20, 30}) log.on_eval(evaluation(step));
  }
  std::ofstream(path, std::ios::app) << R"({"event":"eval","step":20,"spl)";
  {
    MetricsLog log(path, 20);
    log.on_eval(evaluation(25));
    log.before_checkpoint();
  }
  CHECK(read_text_file(path) == to_json_line(evaluation(10)) + "\n" + to_json_line(evaluation(20)) +
                                    "\n" + to_json_line(evaluation(25)) + "\n");
}

TEST_CASE("a resumed log drops lines that are no events, however long") {
  const test::TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  const std::string event = to_json_line(evaluation(10)) + "\n";
  write_file(path, event + "\n" + std::string(std::size_t{1} << 25, '{') + "\n{}\n" + event);
  MetricsLog(path, 20).on_eval(evaluation(10));
  CHECK((read_text_file(path) == event + event + event));
  write_file(path, event + std::string(std::size_t{1} << 25, '{'));
  MetricsLog(path, 20).before_checkpoint();
  CHECK((read_text_file(path) == event));
}

TEST_CASE("a log that cannot be opened or written says so with its path") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_AS(MetricsLog(folder / "absent/metrics.jsonl", 0), Error);
  MetricsLog log(folder / "metrics.jsonl", 0);
  const test::FileSizeLimit full(8);
  std::string message;
  try {
    log.on_eval(evaluation(1));
  } catch (const Error& e) {
    message = e.what();
  }
  CHECK(message.find("metrics.jsonl: cannot write") != std::string::npos);
}

}  // namespace
}  // namespace bitnet
