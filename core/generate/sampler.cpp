// SPDX-License-Identifier: MIT
#include "core/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/error.h"
#include "core/base/random.h"

namespace bitnet {
namespace {

struct Candidate {
  std::int32_t token;
  double value;  // logit, later its probability up to a common factor
};

bool more_likely(const Candidate& a, const Candidate& b) {
  return a.value != b.value ? a.value > b.value : a.token < b.token;
}

void penalize_repetition(std::vector<Candidate>& candidates, std::span<const std::int32_t> history,
                         double penalty) {
  const std::size_t window = std::min(history.size(), static_cast<std::size_t>(kRepetitionWindow));
  std::vector<bool> seen(candidates.size(), false);
  for (const std::int32_t token : history.last(window)) {
    const auto t = static_cast<std::size_t>(token);
    if (token < 0 || t >= candidates.size() || seen[t]) continue;
    seen[t] = true;
    double& logit = candidates[t].value;
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

// Keeps the fewest leading candidates that hold a share of at least p of the whole.
void keep_top_p(std::vector<Candidate>& sorted, double p) {
  double total = 0, sum = 0;
  for (const Candidate& c : sorted) total += c.value;
  std::size_t kept = 0;
  while (kept < sorted.size() && (kept == 0 || sum < p * total)) sum += sorted[kept++].value;
  sorted.resize(kept);
}

void keep_min_p(std::vector<Candidate>& sorted, double min_p) {
  const double threshold = min_p * sorted.front().value;
  while (sorted.size() > 1 && sorted.back().value < threshold) sorted.pop_back();
}

std::int32_t draw(const std::vector<Candidate>& candidates, double uniform) {
  double total = 0;
  for (const Candidate& c : candidates) total += c.value;
  double left = uniform * total;
  for (const Candidate& c : candidates) {
    left -= c.value;
    if (left < 0) return c.token;
  }
  // Rounding used up the last of the probability: the last candidate that has any.
  const auto last = std::find_if(candidates.rbegin(), candidates.rend(),
                                 [](const Candidate& c) { return c.value > 0; });
  return last == candidates.rend() ? candidates.front().token : last->token;
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options) : options_(options) {
  const auto require = [](bool ok, const char* name, const auto& value, const char* range) {
    if (!ok) throw UsageError(fmt::format("{} is {}, but must be {}", name, value, range));
  };
  const SamplerOptions& o = options;
  require(std::isfinite(o.temperature) && o.temperature >= 0, "temperature", o.temperature,
          "0 (greedy) or more");
  require(o.top_k >= 0, "top_k", o.top_k, "0 (all tokens) or more");
  require(o.top_p > 0 && o.top_p <= 1, "top_p", o.top_p, "more than 0 and at most 1 (all tokens)");
  require(o.min_p >= 0 && o.min_p <= 1, "min_p", o.min_p, "from 0 (all tokens) to 1");
  require(o.repetition_penalty >= 0.01 && o.repetition_penalty <= 100, "repetition_penalty",
          o.repetition_penalty, "from 0.01 to 100 (1 is none)");
}

std::int32_t Sampler::sample(std::span<const float> logits, std::span<const std::int32_t> history,
                             std::uint64_t index) const {
  BITNET_CHECK(!logits.empty(), "there are no logits to sample from");
  std::vector<Candidate> candidates(logits.size());
  bool any_finite = false;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || (std::isinf(logits[i]) && logits[i] > 0))
      throw NonFiniteError(fmt::format(
          "the model's logit of token {} is {}: its weights are damaged or its training diverged",
          i, logits[i]));
    any_finite = any_finite || std::isfinite(logits[i]);
    candidates[i] = {static_cast<std::int32_t>(i), static_cast<double>(logits[i])};
  }
  if (!any_finite)
    throw NonFiniteError(
        "every logit of the model is -infinity: its weights are damaged or its training diverged");

  if (options_.repetition_penalty != 1.0)
    penalize_repetition(candidates, history, options_.repetition_penalty);
  if (options_.greedy || options_.temperature == 0)
    return std::min_element(candidates.begin(), candidates.end(), more_likely)->token;

  std::sort(candidates.begin(), candidates.end(), more_likely);
  if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < candidates.size())
    candidates.resize(static_cast<std::size_t>(options_.top_k));
  const double largest = candidates.front().value;
  for (Candidate& c : candidates)
    c.value = std::exp((c.value - largest) / options_.temperature);  // in [0, 1]
  if (options_.top_p < 1) keep_top_p(candidates, options_.top_p);
  if (options_.min_p > 0) keep_min_p(candidates, options_.min_p);
  return draw(candidates, RandomStream{options_.seed, RandomPurpose::sampling, 0}.uniform(index));
}

}  // namespace bitnet
