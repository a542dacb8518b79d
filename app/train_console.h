// SPDX-License-Identifier: MIT
// Shows a training run: a progress line on a terminal, else plain lines on stderr; the same lines
// in train.log.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "app/standard_streams.h"
#include "core/train/train_observer.h"

namespace spdlog {
class logger;
}

namespace bitnet {

class TrainConsole final : public TrainObserver {
 public:
  // Appends to log_file. Throws Error when it cannot be opened.
  TrainConsole(const std::filesystem::path& log_file, std::int64_t max_steps,
               std::int64_t tokens_per_step, double bytes_per_token = 1);
  ~TrainConsole() override;

  // A line for the user and the log; a line for the log alone.
  void say(const std::string& line);
  void log_error(const std::string& line);

  void on_step(std::int64_t step, double loss) override;
  void on_train(const TrainMetrics& metrics) override;
  void on_eval(const EvalMetrics& metrics) override;
  void on_sample(const SampleMetrics& metrics) override;
  void on_checkpoint(std::int64_t step, const std::filesystem::path& folder, bool best) override;

 private:
  std::shared_ptr<spdlog::logger> file_, terminal_;
  const std::int64_t max_steps_, tokens_per_step_;
  const double bytes_per_token_;          // the mean
  std::optional<ProgressLine> progress_;  // only while it is shown
  std::int64_t steps_seen_ = 0;           // by this process
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// "1:02:03" or "2:03".
std::string format_duration(double seconds);

// Text as one printable line: control bytes, and bytes that are not UTF-8, as \n, \t, \x1b.
std::string single_line(std::string_view text);

}  // namespace bitnet
