// SPDX-License-Identifier: MIT
#include "core/data/data_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/base/error.h"

namespace bitnet {
namespace {

constexpr double kSumSlack = 1e-9;    // 0.9 + 0.05 + 0.05 is not exactly 1
constexpr double kMaxCount = 0x1p53;  // larger doubles are not exact integers

// Throws for what is neither three fractions nor three counts.
void check_split(const std::vector<double>& split) {
  if (split.size() != 3)
    throw UsageError(fmt::format(
        "data.split has {} numbers; it takes three: train, valid, test, as fractions or as counts",
        split.size()));
  for (const double part : split)
    if (!(part >= 0.0 && part <= kMaxCount))  // refuses NaN too
      throw UsageError(fmt::format("data.split is [{}], but each number must be 0 or more",
                                   fmt::join(split, ", ")));
}

bool is_fractions(const std::vector<double>& split) {
  return std::all_of(split.begin(), split.end(), [](double part) { return part <= 1.0; }) &&
         std::accumulate(split.begin(), split.end(), 0.0) <= 1.0 + kSumSlack;
}

void check_counts(const std::vector<double>& split) {
  if (!std::all_of(split.begin(), split.end(),
                   [](double part) { return std::floor(part) == part; }))
    throw UsageError(fmt::format(
        "data.split is [{}]: fractions must add up to at most 1, counts must be whole numbers",
        fmt::join(split, ", ")));
}

}  // namespace

std::array<std::size_t, 3> split_ends(const std::vector<double>& split, std::size_t size,
                                      const char* unit) {
  check_split(split);
  std::array<std::size_t, 3> ends{};
  double sum = 0.0;
  if (is_fractions(split)) {
    for (std::size_t i = 0; i < 3; ++i) {
      sum += split[i];
      ends[i] =
          std::min(size, static_cast<std::size_t>(std::llround(sum * static_cast<double>(size))));
    }
    return ends;
  }
  check_counts(split);
  for (std::size_t i = 0; i < 3; ++i) {
    sum += split[i];
    if (sum > static_cast<double>(size))
      throw UsageError(fmt::format(
          "data.split asks for {} {} ([{}]) but the data has {}; take smaller counts, or fractions "
          "such as [0.9, 0.05, 0.05]",
          std::accumulate(split.begin(), split.end(), 0.0), unit, fmt::join(split, ", "), size));
    ends[i] = static_cast<std::size_t>(sum);
  }
  return ends;
}

void DataConfig::visit_fields(FieldVisitor& visitor) {
  visitor.field("path", path, {},
                "text to learn from: a raw file, or gzip (.gz, .dz); or a token shard");
  visitor.field("split", split,
                "train, valid, test: fractions, or counts of bytes (of a shard: tokens)");
  visitor.field("order", order, {"random", "sequential"}, "order of the training windows");
  visitor.field("tokenizer", tokenizer, {},
                "folder of the tokenizer of a shard, or to encode the text with; empty: bytes, or "
                "that of train.init");
}

void DataConfig::validate() const {
  if (path.empty())
    throw UsageError("data.path is not set; name a file, e.g. --set data.path=data/enwik8");
  check_split(split);
  if (!is_fractions(split)) check_counts(split);
  if (split[0] == 0.0)
    throw UsageError("data.split leaves nothing to train on: its first number is 0");
  if (order != "random" && order != "sequential")
    throw UsageError(fmt::format("data.order is '{}'; it is random or sequential", order));
}

DataSplits split_bytes(std::span<const std::uint8_t> bytes, const std::vector<double>& split) {
  const auto [train_end, valid_end, test_end] = split_ends(split, bytes.size());
  return {bytes.first(train_end), bytes.subspan(train_end, valid_end - train_end),
          bytes.subspan(valid_end, test_end - valid_end)};
}

}  // namespace bitnet
