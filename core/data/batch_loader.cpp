// SPDX-License-Identifier: MIT
#include "core/data/batch_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <limits>

#include "core/base/error.h"
#include "core/base/random.h"

namespace bitnet {
namespace {

// Far above any use; it keeps the arithmetic of window_start() within 64 bits.
constexpr std::int64_t kMaxSequenceLength = std::int64_t{1} << 24;

}  // namespace

BatchLoader::BatchLoader(TokenSpan train, const BatchPlan& plan) : train_(train), plan_(plan) {
  if (plan.sequence_length < 1 || plan.batch_size < 1 || plan.micro_batches < 1)
    throw UsageError(fmt::format(
        "a batch of {} rows of {} tokens, {} times a step, is empty; each must be at least 1",
        plan.batch_size, plan.sequence_length, plan.micro_batches));
  if (plan.sequence_length > kMaxSequenceLength || plan.batch_size > BatchPlan::kMaxWindows ||
      plan.micro_batches > BatchPlan::kMaxWindows)
    throw UsageError(fmt::format(
        "a step of {} x {} windows of {} tokens is too large; at most {} x {} of {} are possible",
        plan.micro_batches, plan.batch_size, plan.sequence_length, BatchPlan::kMaxWindows,
        BatchPlan::kMaxWindows, kMaxSequenceLength));
  if (plan.order != "random" && plan.order != "sequential")
    throw UsageError(fmt::format("data.order is '{}'; it is random or sequential", plan.order));
  if (train.size() <= static_cast<std::size_t>(plan.sequence_length))
    throw Error(fmt::format(
        "the training split has {} tokens, but a window of sequence length {} takes {}; use more "
        "data, a larger share in data.split, or a shorter train.sequence_length",
        train.size(), plan.sequence_length, plan.sequence_length + 1));
}

// Offset of the window's first token. There are train.size() - 1 (input, target) pairs.
std::uint64_t BatchLoader::window_start(std::int64_t step, std::int64_t index) const {
  const auto length = static_cast<std::uint64_t>(plan_.sequence_length);
  if (plan_.order == "random") {
    const RandomStream stream{plan_.seed, RandomPurpose::batch_order,
                              static_cast<std::uint32_t>(step)};
    return stream.below(static_cast<std::uint64_t>(index), train_.size() - length);
  }
  // Neither product wraps: step < 2^32 and windows_per_step < 2^31; the remainder is below the
  // data's size, which no machine holds above 2^40 tokens, and sequence_length <= 2^24.
  const std::uint64_t window =
      static_cast<std::uint64_t>(step) * static_cast<std::uint64_t>(plan_.windows_per_step()) +
      static_cast<std::uint64_t>(index);
  const std::uint64_t pairs = train_.size() - 1;
  return window % pairs * length % pairs;
}

void BatchLoader::batch(std::int64_t step, std::int64_t micro_batch, std::span<std::int32_t> tokens,
                        std::span<std::int32_t> targets) const {
  const auto length = static_cast<std::size_t>(plan_.sequence_length);
  const auto rows = static_cast<std::size_t>(plan_.batch_size);
  BITNET_CHECK(step >= 0 && step <= std::numeric_limits<std::uint32_t>::max(),
               "step {} is not in [0, 2^32)", step);
  BITNET_CHECK(micro_batch >= 0 && micro_batch < plan_.micro_batches,
               "micro-batch {} is not in [0, {})", micro_batch, plan_.micro_batches);
  BITNET_CHECK(tokens.size() == rows * length && targets.size() == rows * length,
               "tokens has {} and targets {} elements, not {} x {}", tokens.size(), targets.size(),
               rows, length);
  for (std::size_t row = 0; row < rows; ++row) {
    std::uint64_t position =
        window_start(step, micro_batch * plan_.batch_size + static_cast<std::int64_t>(row));
    // Only a sequential window crosses the seam, after the last (input, target) pair.
    for (std::size_t i = row * length; i < (row + 1) * length;) {
      const std::size_t count =
          std::min<std::size_t>((row + 1) * length - i, train_.size() - 1 - position);
      train_.copy(position, tokens.subspan(i, count));
      train_.copy(position + 1, targets.subspan(i, count));
      i += count;
      position = 0;
    }
  }
}

}  // namespace bitnet
