// SPDX-License-Identifier: MIT
#include "core/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/generate/large_vocabulary.h"

namespace bitnet {
namespace {

// Up to so many tokens are simply sorted, all of them.
constexpr std::size_t kSortedVocabulary = 4096;

// Each token among the last kRepetitionWindow of the history, once, with its new logit.
std::vector<Candidate> penalize_repetition(std::span<const float> logits,
                                           std::span<const std::int32_t> history, double penalty) {
  const std::size_t window = std::min(history.size(), static_cast<std::size_t>(kRepetitionWindow));
  std::vector<Candidate> changed;
  for (const std::int32_t token : history.last(window)) {
    if (token < 0 || static_cast<std::size_t>(token) >= logits.size()) continue;
    if (std::any_of(changed.begin(), changed.end(),
                    [token](const Candidate& c) { return c.token == token; }))
      continue;
    const auto logit = static_cast<double>(logits[static_cast<std::size_t>(token)]);
    changed.push_back({token, logit > 0 ? logit / penalty : logit * penalty});
  }
  return changed;
}

double sum_of(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& c : candidates) sum += c.value;
  return sum;
}

// Keeps the fewest leading candidates that hold a share of at least p of the whole.
void keep_top_p(std::vector<Candidate>& sorted, double p) {
  const double total = sum_of(sorted);
  double sum = 0;
  std::size_t kept = 0;
  while (kept < sorted.size() && (kept == 0 || sum < p * total)) sum += sorted[kept++].value;
  sorted.resize(kept);
}

void keep_min_p(std::vector<Candidate>& sorted, double min_p) {
  const double threshold = min_p * sorted.front().value;
  while (sorted.size() > 1 && sorted.back().value < threshold) sorted.pop_back();
}

std::int32_t draw(const std::vector<Candidate>& candidates, double uniform) {
  double left = uniform * sum_of(candidates);
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
  const LogitScan scan(logits);
  const bool greedy = options_.greedy || options_.temperature == 0;
  std::vector<Candidate> penalized;
  if (options_.repetition_penalty != 1.0)
    penalized = penalize_repetition(logits, history, options_.repetition_penalty);
  if (greedy && penalized.empty()) return scan.argmax();

  if (logits.size() <= kSortedVocabulary) {
    std::vector<Candidate> all = scan.all();
    for (const Candidate& c : penalized) all[static_cast<std::size_t>(c.token)] = c;
    if (greedy) return std::min_element(all.begin(), all.end(), more_likely)->token;
    return choose(std::move(all), index);
  }
  if (penalized.empty()) return choose_unsorted(scan, index);
  changed_.assign(logits.begin(), logits.end());
  for (const Candidate& c : penalized)
    changed_[static_cast<std::size_t>(c.token)] = static_cast<float>(c.value);
  const LogitScan changed(changed_);
  return greedy ? changed.argmax() : choose_unsorted(changed, index);
}

std::int32_t Sampler::choose(std::vector<Candidate> candidates, std::uint64_t index) const {
  std::sort(candidates.begin(), candidates.end(), more_likely);
  if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < candidates.size())
    candidates.resize(static_cast<std::size_t>(options_.top_k));
  const double largest = candidates.front().value;
  for (Candidate& c : candidates)
    c.value = std::exp((c.value - largest) / options_.temperature);  // in [0, 1]
  if (options_.top_p < 1) keep_top_p(candidates, options_.top_p);
  if (options_.min_p > 0) keep_min_p(candidates, options_.min_p);
  return draw(candidates, uniform(index));
}

// The same choice among so many tokens that only those which decide are sorted.
std::int32_t Sampler::choose_unsorted(const LogitScan& scan, std::uint64_t index) const {
  const double temperature = options_.temperature, top_p = options_.top_p;
  if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < scan.size())
    return choose(scan.largest(static_cast<std::size_t>(options_.top_k)), index);
  if (options_.min_p > 0 && top_p == 1) {
    const double bound =
        static_cast<double>(scan.largest()) + temperature * std::log(options_.min_p);
    const double slack = 1e-9 * (1 + std::abs(bound));  // keep_min_p() draws the line
    std::vector<Candidate> candidates = scan.at_least(bound - slack, kSortedVocabulary);
    if (candidates.size() < kSortedVocabulary) return choose(std::move(candidates), index);
  }
  const BinnedWeights weights(scan, temperature);
  double kept = weights.total();
  if (top_p < 1) kept = weights.reach(top_p * kept).sum;
  if (options_.min_p > 0) kept = std::min(kept, weights.sum_at_least(options_.min_p));
  return weights.reach(uniform(index) * kept).token;
}

double Sampler::uniform(std::uint64_t index) const {
  return RandomStream{options_.seed, RandomPurpose::sampling, 0}.uniform(index);
}

}  // namespace bitnet
