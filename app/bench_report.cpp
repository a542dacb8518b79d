// SPDX-License-Identifier: MIT
#include "app/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/standard_streams.h"
#include "app/version.h"
#include "core/base/machine.h"

namespace bitnet {
namespace {

using nlohmann::ordered_json;

constexpr double kMegabyte = 1e6;

// Four significant digits, and no fewer before the point: "0.2384", "37.41", "12345".
std::string number(double value) {
  return fmt::format("{:.{}f}", value,
                     value < 1      ? 4
                     : value < 10   ? 3
                     : value < 100  ? 2
                     : value < 1000 ? 1
                                    : 0);
}

std::string spaced(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

// Columns as wide as their longest text, numbers to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> head, std::string alignments)
      : alignments_(std::move(alignments)) {
    add(std::move(head));
  }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const {
    std::vector<std::size_t> widths(alignments_.size());
    for (const auto& row : rows_)
      for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
    std::string all;
    for (const auto& row : rows_) {
      std::string line;
      for (std::size_t c = 0; c < row.size(); ++c)
        line += alignments_[c] == '>' ? fmt::format("{:>{}}  ", row[c], widths[c])
                                      : fmt::format("{:<{}}  ", row[c], widths[c]);
      line.erase(line.find_last_not_of(' ') + 1);
      all += line;
      all += '\n';
    }
    return all;
  }

 private:
  std::string alignments_;  // '<' or '>' for each column
  std::vector<std::vector<std::string>> rows_;
};

void add_statistics(ordered_json& object, const Statistics& value) {
  object["median"] = value.median;
  object["min"] = value.min;
  object["max"] = value.max;
  object["repeats"] = value.repeats;
}

bool infers(const BenchReport& report) {
  return std::any_of(report.results.begin(), report.results.end(),
                     [](const auto& result) { return result.row.workload != "train"; });
}

}  // namespace

BenchLimit make_limit(std::string name, std::string unit, const LimitMeasurement& samples) {
  std::vector<double> billions;
  for (const double sample : samples.per_second) billions.push_back(1e-9 * sample);
  return {std::move(name), std::move(unit), samples.kernel, summarize(billions)};
}

void print_bench_tables(const BenchReport& report) {
  std::string text;
  if (report.device)
    text = fmt::format("{}: {}; host: ", report.device->name, report.device->detail);
  text += fmt::format("{}, {}, {} thread{}\n\n", processor_name(), report.isa, report.threads,
                      report.threads == 1 ? "" : "s");
  Table limits({"limit", "median", "min", "max", "unit", "reached with"}, "<>>><<");
  for (const BenchLimit& limit : report.limits)
    limits.add({spaced(limit.name), number(limit.value.median), number(limit.value.min),
                number(limit.value.max), limit.unit, limit.kernel});
  text += limits.text();
  if (!report.results.empty()) {
    Table results({"workload", "config", "median", "min", "max", "unit", "of limit", "bound by",
                   "peak memory"},
                  "<<>>><><>");
    for (const auto& [config, row] : report.results)
      results.add(
          {row.workload, config, number(row.value.median), number(row.value.min),
           number(row.value.max), row.unit, fmt::format("{:.1f} %", 100 * row.fraction_of_limit),
           spaced(row.bound_by),
           row.peak_memory_bytes == 0
               ? "unknown"
               : fmt::format("{:.0f} MB", static_cast<double>(row.peak_memory_bytes) / kMegabyte)});
    text += fmt::format("\n{}", results.text());
    if (infers(report))
      text += fmt::format("({} head, {} keys and values)\n", report.head, report.kv_cache);
  }
  for (const auto& [workload, reason] : report.skipped)
    text += fmt::format("\n{} was left out: {}\n", workload, reason);
  write_stdout(text);
}

void print_bench_json(const BenchReport& report) {
  ordered_json document = {{"bitnet", kVersion},
                           {"git", kGitId},
                           {"processor", processor_name()},
                           {"isa", report.isa},
                           {"threads", report.threads},
                           {"memory_bytes", physical_memory()},
                           {"l2_bytes", report.l2_bytes},
                           {"l3_bytes", cache_bytes(3)},
                           {"head", report.head},
                           {"kv_cache", report.kv_cache}};
  if (report.device)
    document["device"] = {{"name", report.device->name},
                          {"detail", report.device->detail},
                          {"memory_bytes", report.device->memory_bytes},
                          {"l2_bytes", report.device->l2_bytes}};
  ordered_json& limits = document["limits"] = ordered_json::object();
  for (const BenchLimit& limit : report.limits) {
    ordered_json& object = limits[limit.name];
    object["unit"] = limit.unit;
    add_statistics(object, limit.value);
    object["kernel"] = limit.kernel;
  }
  ordered_json& results = document["results"] = ordered_json::array();
  for (const auto& [config, row] : report.results) {
    ordered_json object = {{"workload", row.workload}, {"config", config}, {"unit", row.unit}};
    add_statistics(object, row.value);
    object["limit"] = row.limit;
    object["fraction_of_limit"] = row.fraction_of_limit;
    object["bound_by"] = row.bound_by;
    object["peak_memory_bytes"] =
        row.peak_memory_bytes == 0 ? ordered_json() : ordered_json(row.peak_memory_bytes);
    for (const auto& [name, value] : row.details) object[name] = value;
    results.push_back(std::move(object));
  }
  ordered_json& skipped = document["skipped"] = ordered_json::array();
  for (const auto& [workload, reason] : report.skipped)
    skipped.push_back({{"workload", workload}, {"reason", reason}});
  write_json_line(document);
}

}  // namespace bitnet
