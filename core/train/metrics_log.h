// SPDX-License-Identifier: MIT
// metrics.jsonl: one JSON object a line for each event of a run. What depends on the clock sits in
// the nested object "timing"; without it the file of a resumed run equals that of an uninterrupted
// one, byte for byte.
#pragma once

#include <filesystem>
#include <string>

#include "core/train/train_observer.h"

namespace bitnet {

// A line each, without the newline.
std::string to_json_line(const TrainMetrics& metrics);
std::string to_json_line(const EvalMetrics& metrics);
std::string to_json_line(const SampleMetrics& metrics);

class MetricsLog final : public TrainObserver {
 public:
  // Continues the file, or begins it. Lines of steps after `last_step` and a line cut off by a
  // crash are removed first, by an atomic rewrite. Throws Error with the path and the system's
  // reason, now and at each write.
  MetricsLog(const std::filesystem::path& path, std::int64_t last_step);
  ~MetricsLog() override;
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void on_train(const TrainMetrics& metrics) override { append(to_json_line(metrics)); }
  void on_eval(const EvalMetrics& metrics) override { append(to_json_line(metrics)); }
  void on_sample(const SampleMetrics& metrics) override { append(to_json_line(metrics)); }
  void before_checkpoint() override;

 private:
  void append(std::string line);
  [[noreturn]] void fail(const char* action) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace bitnet
