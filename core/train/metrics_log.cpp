// SPDX-License-Identifier: MIT
#include "core/train/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <vector>

#include "core/base/error.h"
#include "core/base/file.h"

namespace bitnet {
namespace {

using nlohmann::ordered_json;

// Samples may hold any bytes: those that are not UTF-8 become U+FFFD.
std::string line_of(const ordered_json& event) {
  return event.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

// Far above any event's; what is longer is none of ours.
constexpr std::size_t kLongestLine = std::size_t{1} << 24;

bool is_event_until(std::string_view line, std::int64_t last_step) {
  const auto event = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!event.is_object()) return false;
  const auto step = event.find("step");
  return step != event.end() && step->is_number_integer() && step->get<std::int64_t>() <= last_step;
}

// Removes all but the lines that are whole events of steps up to last_step. The file may be larger
// than the memory.
void keep_events_until(const std::filesystem::path& path, std::int64_t last_step) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(fmt::format("{}: cannot open for reading", path.string()));
  OutputFile kept(path);
  bool changed = false;
  std::vector<char> buffer(kLongestLine + 1);
  for (;;) {
    in.getline(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    const auto read = static_cast<std::size_t>(in.gcount());  // with the newline
    if (in.bad()) throw Error(fmt::format("{}: cannot read", path.string()));
    if (in.eof()) {  // what a crash left of a line, or nothing
      changed = changed || read > 0;
      break;
    }
    if (in.fail()) {
      in.clear();
      in.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    } else if (const std::string_view line(buffer.data(), read - 1);
               is_event_until(line, last_step)) {
      buffer[read - 1] = '\n';
      kept.write(std::string_view(buffer.data(), read));
      continue;
    }
    changed = true;
  }
  if (changed) kept.commit();
}

}  // namespace

std::string to_json_line(const TrainMetrics& m) {
  ordered_json event = {
      {"event", "train"},
      {"step", m.step},
      {"tokens", m.tokens},
      {"loss", m.loss},
      {"bits_per_byte", m.bits_per_byte},
      {"learning_rate", m.learning_rate},
      {"weight_decay", m.weight_decay},
      {"grad_norm", m.gradient_norm},
      {"quant_amount", m.quant_amount},
  };
  for (const ProjectionMetrics& p : m.projections)
    event["projections"][p.name] = {{"minus", p.minus},
                                    {"zero", p.zero},
                                    {"plus", p.plus},
                                    {"flips", p.flips},
                                    {"weight_scale", p.weight_scale}};
  event["timing"] = {{"tokens_per_second", m.tokens_per_second}, {"seconds", m.seconds}};
  return line_of(event);
}

std::string to_json_line(const EvalMetrics& m) {
  return line_of({
      {"event", "eval"},
      {"step", m.step},
      {"split", "valid"},
      {"bytes", m.bytes},
      {"loss", m.loss},
      {"bits_per_byte", m.bits_per_byte},
      {"timing", {{"tokens_per_second", m.tokens_per_second}, {"seconds", m.seconds}}},
  });
}

std::string to_json_line(const SampleMetrics& m) {
  return line_of({{"event", "sample"}, {"step", m.step}, {"prompt", m.prompt}, {"text", m.text}});
}

MetricsLog::MetricsLog(const std::filesystem::path& path, std::int64_t last_step) : path_(path) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored)) keep_events_until(path, last_step);
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail("open for writing");
}

MetricsLog::~MetricsLog() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MetricsLog::append(std::string line) {
  line.push_back('\n');
  for (std::string_view rest = line; !rest.empty();) {
    const ssize_t count = ::write(descriptor_, rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("write");
    rest.remove_prefix(static_cast<std::size_t>(count));
  }
}

void MetricsLog::before_checkpoint() {
  if (::fsync(descriptor_) != 0 && errno != EINVAL && errno != ENOTSUP) fail("flush to the disk");
}

void MetricsLog::fail(const char* action) const {
  throw Error(fmt::format("{}: cannot {}: {}; earlier checkpoints are intact", path_.string(),
                          action, std::generic_category().message(errno)));
}

}  // namespace bitnet
