// SPDX-License-Identifier: MIT
// Cuts the training tokens into windows of T inputs and T targets. Which window a row of a batch
// holds is a pure function of (seed, step, index): a resumed run, or one that asks in another
// order, sees the same tokens.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/data/token_span.h"

namespace bitnet {

struct BatchPlan {
  // Of batch_size and of micro_batches: far above any use, it keeps their product within 32 bits.
  static constexpr std::int64_t kMaxWindows = std::int64_t{1} << 15;

  std::int64_t sequence_length = 0;  // T
  std::int64_t batch_size = 0;       // B, rows of one micro-batch
  std::int64_t micro_batches = 1;    // of one step (gradient_accumulation_steps)
  // random:     each window starts anywhere, independently of the others.
  // sequential: windows follow each other without gap or overlap, and start over at the end of the
  // data, so that each
  //             (input, target) pair is seen exactly once in a pass; the window across the seam
  //             holds both ends.
  std::string order = "random";
  std::uint64_t seed = 0;

  std::int64_t windows_per_step() const { return batch_size * micro_batches; }
};

// Borrows the tokens, which must outlive it.
class BatchLoader {
 public:
  // Throws UsageError for a plan out of range, Error when `train` holds fewer than T + 1 tokens.
  BatchLoader(TokenSpan train, const BatchPlan& plan);

  // The rows of micro-batch 0 <= micro_batch < micro_batches of step 0 <= step < 2^32. targets[i]
  // is the token that follows tokens[i].
  void batch(std::int64_t step, std::int64_t micro_batch,
             std::span<std::int32_t> tokens,          // [B, T]
             std::span<std::int32_t> targets) const;  // [B, T]

  const BatchPlan& plan() const { return plan_; }

 private:
  std::uint64_t window_start(std::int64_t step, std::int64_t index) const;

  TokenSpan train_;
  BatchPlan plan_;
};

}  // namespace bitnet
