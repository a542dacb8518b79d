// SPDX-License-Identifier: MIT
#include "app/train_console.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/error.h"
#include "core/tokenizer/utf8.h"

namespace bitnet {

TrainConsole::TrainConsole(const std::filesystem::path& log_file, std::int64_t max_steps,
                           std::int64_t tokens_per_step, double bytes_per_token)
    : max_steps_(max_steps), tokens_per_step_(tokens_per_step), bytes_per_token_(bytes_per_token) {
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_st>(log_file.string());
    file_ = std::make_shared<spdlog::logger>("file", std::move(sink));
  } catch (const spdlog::spdlog_ex& e) {
    throw Error(fmt::format("{}: cannot write the log: {}", log_file.string(), e.what()));
  }
  file_->set_pattern("%Y-%m-%d %H:%M:%S %l %v");
  file_->flush_on(spdlog::level::info);
  terminal_ =
      std::make_shared<spdlog::logger>("stderr", std::make_shared<spdlog::sinks::stderr_sink_st>());
  terminal_->set_pattern("%H:%M:%S %v");
  terminal_->flush_on(spdlog::level::info);
  // A log that can no longer be written (a full disk) does not stop the training: metrics and
  // checkpoints report it.
  for (const auto& logger : {file_, terminal_})
    logger->set_error_handler([](const std::string&) {});
}

TrainConsole::~TrainConsole() = default;

void TrainConsole::say(const std::string& line) {
  progress_.reset();
  terminal_->info(line);
  file_->info(line);
}

void TrainConsole::log_error(const std::string& line) {
  progress_.reset();
  file_->error(line);
}

void TrainConsole::on_step(std::int64_t step, double loss) {
  ++steps_seen_;
  if (!stderr_is_terminal()) return;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
  const double per_step = elapsed.count() / static_cast<double>(steps_seen_);
  if (!progress_) progress_.emplace();
  progress_->show(fmt::format("step {}/{}  loss {:.4f}  {:.3f} bits/byte  {:.0f} tokens/s  {} left",
                              step, max_steps_, loss, loss / std::numbers::ln2 / bytes_per_token_,
                              static_cast<double>(tokens_per_step_) / std::max(per_step, 1e-9),
                              format_duration(per_step * static_cast<double>(max_steps_ - step))));
}

void TrainConsole::on_train(const TrainMetrics& m) {
  const double left = static_cast<double>((max_steps_ - m.step) * tokens_per_step_) /
                      std::max(m.tokens_per_second, 1e-9);
  const std::string line = fmt::format(
      "step {}/{}  loss {:.4f}  {:.3f} bits/byte  lr {:.3g}  grad norm {:.3f}  {:.0f} tokens/s  {} "
      "left",
      m.step, max_steps_, m.loss, m.bits_per_byte, m.learning_rate, m.gradient_norm,
      m.tokens_per_second, format_duration(left));
  file_->info(line);
  if (!stderr_is_terminal()) terminal_->info(line);
}

void TrainConsole::on_eval(const EvalMetrics& m) {
  say(fmt::format("step {}/{}  validation {:.4f} bits/byte over {} bytes", m.step, max_steps_,
                  m.bits_per_byte, m.bytes));
}

void TrainConsole::on_sample(const SampleMetrics& m) {
  say(fmt::format("step {}/{}  sample: {}", m.step, max_steps_, single_line(m.prompt + m.text)));
}

void TrainConsole::on_checkpoint(std::int64_t step, const std::filesystem::path& folder,
                                 bool best) {
  say(fmt::format("step {}/{}  saved {}{}", step, max_steps_, folder.string(),
                  best ? ", the best so far" : ""));
}

std::string format_duration(double seconds) {
  const auto total = static_cast<std::int64_t>(std::llround(std::clamp(seconds, 0.0, 1e9)));
  const std::int64_t hours = total / 3600, minutes = total / 60 % 60, rest = total % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, rest)
                   : fmt::format("{}:{:02}", minutes, rest);
}

std::string single_line(std::string_view text) {
  std::string line;
  while (!text.empty()) {
    const auto first = static_cast<unsigned char>(text.front());
    const std::size_t length = std::max<std::size_t>(1, utf8_length(text));
    if (text.front() == '\n') {
      line += "\\n";
    } else if (text.front() == '\t') {
      line += "\\t";
    } else if (first < 0x20 || first == 0x7f || (first >= 0x80 && length == 1)) {
      line += fmt::format("\\x{:02x}", first);
    } else {
      line += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return line;
}

}  // namespace bitnet
