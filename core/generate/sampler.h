// SPDX-License-Identifier: MIT
// The choice of the next token from the model's logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/generate/large_vocabulary.h"

namespace bitnet {

struct SamplerOptions {
  double temperature = 0.8;         // divides the logits; 0 is greedy
  std::int64_t top_k = 0;           // 0: all
  double top_p = 1.0;               // 1: all
  double min_p = 0.0;               // 0: all
  double repetition_penalty = 1.0;  // 1: none; 0.01 to 100
  bool greedy = false;
  std::uint64_t seed = 0;
};

// Tokens back from the end that the repetition penalty looks at, the prompt's included. All of a
// byte model's context would soon hold every letter.
inline constexpr std::int64_t kRepetitionWindow = 64;

// The steps, in this order (Hugging Face's):
//   1. repetition penalty: each token among the last kRepetitionWindow gets logit / penalty where
//      its logit is positive, else logit * penalty (once, however often it occurs);
//   2. greedy: the largest logit, of equal ones the lowest id; done;
//   3. temperature;
//   4. top-k: the k largest, of equal ones the lower ids;
//   5. softmax over these;
//   6. top-p: the fewest most probable tokens whose probabilities sum to at least p;
//   7. min-p: those with at least min_p times the largest probability (one token always stays);
//   8. one of the rest in proportion to its probability.
// Probabilities are computed in double; where there are more than 4096 tokens and neither top-k nor
// min-p leaves few of them, in fp32, and penalised logits are rounded to fp32.
class Sampler {
 public:
  // Throws UsageError for a value out of range, saying which range.
  explicit Sampler(const SamplerOptions& options);

  // The token number `index` of the text: a pure function of the arguments and the options. The
  // chance comes from RandomStream{seed, sampling, 0}.uniform(index). `history`: all tokens so far.
  // Throws NonFiniteError when a logit is NaN or +infinity. Not for two threads at once.
  std::int32_t sample(std::span<const float> logits, std::span<const std::int32_t> history,
                      std::uint64_t index) const;

 private:
  std::int32_t choose(std::vector<Candidate> candidates, std::uint64_t index) const;
  std::int32_t choose_unsorted(const LogitScan& scan, std::uint64_t index) const;
  double uniform(std::uint64_t index) const;

  SamplerOptions options_;
  mutable std::vector<float> changed_;  // scratch: penalised logits of a large vocabulary
};

}  // namespace bitnet
