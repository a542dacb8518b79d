// SPDX-License-Identifier: MIT
#include "core/generate/large_vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>

#include "core/base/error.h"

namespace bitnet {
namespace {

constexpr std::size_t kBlock = 32;   // logits that share a maximum
constexpr std::size_t kChunk = 512;  // logits whose bins and weights are computed at once
constexpr std::int32_t kBins = 2048;
constexpr float kLastExponent = -87;  // e^-87 is the last weight that is a normal fp32 number

// Integers in the order of the floats they stand for, -0 just below +0. Unlike comparisons of
// floats, theirs compile to vector instructions, and a NaN cannot hide: it is beyond an infinity.
std::int32_t ordered(float x) {
  const auto bits = std::bit_cast<std::int32_t>(x);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
float from_ordered(std::int32_t key) {
  return std::bit_cast<float>(key ^ ((key >> 31) & 0x7fffffff));
}

struct KeyRange {
  std::int32_t smallest = std::numeric_limits<std::int32_t>::max(),
               largest = std::numeric_limits<std::int32_t>::min();
};

KeyRange key_range(const float* logits, std::size_t count) {
  KeyRange range;
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t key = ordered(logits[i]);
    range.smallest = std::min(range.smallest, key);
    range.largest = std::max(range.largest, key);
  }
  return range;
}

[[noreturn]] void refuse(std::span<const float> logits) {
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (std::isnan(logits[i]) || (std::isinf(logits[i]) && logits[i] > 0))
      throw NonFiniteError(fmt::format(
          "the model's logit of token {} is {}: its weights are damaged or its training diverged",
          i, logits[i]));
  throw NonFiniteError(
      "every logit of the model is -infinity: its weights are damaged or its training diverged");
}

// x = e^x for x <= 0, within 2^-21 of it: e^x = 2^n e^r with |r| <= ln 2 / 2, e^r by its series up to
// r^6, whose next term is below 2^-22. 0 where x < -87. Comparisons are arithmetic on the bits, with
// which the loop compiles to vector instructions.
void exp_of_negative(float* x, std::size_t count) {
  constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: adding it leaves the nearest integer
  constexpr float kPerLn2 = 1.44269504f, kLn2High = 0.693145752f, kLn2Low = 1.42860677e-6f;
  constexpr auto kLast = std::bit_cast<std::int32_t>(-kLastExponent);
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t magnitude = std::bit_cast<std::int32_t>(x[i]) & 0x7fffffff;
    const float bounded = -std::bit_cast<float>(std::min(magnitude, kLast));
    const float shifted = bounded * kPerLn2 + kRound;
    const float n = shifted - kRound, r = (bounded - n * kLn2High) - n * kLn2Low;
    float power = 1.0f / 720;
    power = power * r + 1.0f / 120;
    power = power * r + 1.0f / 24;
    power = power * r + 1.0f / 6;
    power = power * r + 0.5f;
    power = power * r + 1;
    power = power * r + 1;
    const std::int32_t scaled =
        std::bit_cast<std::int32_t>(power) + static_cast<std::int32_t>(n) * (1 << 23);
    const std::int32_t keep = (magnitude - kLast - 1) >> 31;  // all bits, or none
    x[i] = std::bit_cast<float>(scaled & keep);
  }
}

}  // namespace

LogitScan::LogitScan(std::span<const float> logits) : logits_(logits) {
  BITNET_CHECK(!logits.empty(), "there are no logits to sample from");
  block_maxima_.resize((logits.size() + kBlock - 1) / kBlock);
  KeyRange all;
  for (std::size_t b = 0; b < block_maxima_.size(); ++b) {
    const std::size_t count = std::min(kBlock, logits.size() - b * kBlock);
    const KeyRange block = key_range(logits.data() + b * kBlock, count);
    block_maxima_[b] = from_ordered(block.largest);
    all.smallest = std::min(all.smallest, block.smallest);
    all.largest = std::max(all.largest, block.largest);
  }
  largest_ = from_ordered(all.largest);
  smallest_ = from_ordered(all.smallest);
  if (!std::isfinite(largest_) || std::isnan(smallest_)) refuse(logits);
}

std::int32_t LogitScan::argmax() const {
  const auto block = std::find(block_maxima_.begin(), block_maxima_.end(), largest_);
  const auto first =
      logits_.begin() + (block - block_maxima_.begin()) * static_cast<std::ptrdiff_t>(kBlock);
  return static_cast<std::int32_t>(std::find(first, logits_.end(), largest_) - logits_.begin());
}

std::vector<Candidate> LogitScan::all() const {
  std::vector<Candidate> found(logits_.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    found[i] = {static_cast<std::int32_t>(i), static_cast<double>(logits_[i])};
  return found;
}

std::vector<Candidate> LogitScan::at_least(double bound, std::size_t limit) const {
  std::vector<Candidate> found;
  for (std::size_t b = 0; b < block_maxima_.size(); ++b) {
    if (static_cast<double>(block_maxima_[b]) < bound) continue;
    const std::size_t end = std::min((b + 1) * kBlock, logits_.size());
    for (std::size_t i = b * kBlock; i < end; ++i) {
      const auto logit = static_cast<double>(logits_[i]);
      if (logit < bound) continue;
      if (found.size() == limit) return found;
      found.push_back({static_cast<std::int32_t>(i), logit});
    }
  }
  return found;
}

// k blocks have a maximum of at least the k-th largest maximum, so at least k logits are that large.
std::vector<Candidate> LogitScan::largest(std::size_t k) const {
  if (k > block_maxima_.size()) return all();
  std::vector<float> maxima = block_maxima_;
  const auto kth = maxima.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(maxima.begin(), kth, maxima.end(), std::greater<>());
  return at_least(static_cast<double>(*kth), logits_.size());
}

// What has a weight is within 87 temperatures of the largest logit. The bounds keep both factors
// finite for a temperature of next to nothing and for logits that are all the same.
BinnedWeights::BinnedWeights(const LogitScan& scan, double temperature)
    : logits_(scan.logits_),
      temperature_(temperature),
      largest_(scan.largest_),
      per_degree_(static_cast<float>(std::min(1 / temperature, 1e30))),
      mass_(kBins, 0.0) {
  const double spread = static_cast<double>(scan.largest_) - static_cast<double>(scan.smallest_);
  const double range = std::clamp(-static_cast<double>(kLastExponent) * temperature, 1e-30, 1e30);
  bins_per_unit_ = static_cast<float>((kBins - 1) / std::max(std::min(range, spread), 1e-30));

  std::array<std::int32_t, kChunk> bins;
  std::array<float, kChunk> weights;
  for (std::size_t first = 0; first < logits_.size(); first += kChunk) {
    const auto chunk = logits_.subspan(first, std::min(kChunk, logits_.size() - first));
    bins_of(chunk, bins.data());
    weigh(chunk, weights.data());
    for (std::size_t i = 0; i < chunk.size(); ++i)
      mass_[static_cast<std::size_t>(bins[i])] += static_cast<double>(weights[i]);
  }
}

// Equal logits share a bin, a larger one is never in a later bin; -infinity is in the last.
void BinnedWeights::bins_of(std::span<const float> logits, std::int32_t* bins) const {
  constexpr float kLast = kBins - 1;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float place = (largest_ - logits[i]) * bins_per_unit_;
    bins[i] = static_cast<std::int32_t>(place < kLast ? place : kLast);
  }
}

void BinnedWeights::weigh(std::span<const float> logits, float* weights) const {
  for (std::size_t i = 0; i < logits.size(); ++i) weights[i] = (logits[i] - largest_) * per_degree_;
  exp_of_negative(weights, logits.size());
}

double BinnedWeights::total() const {
  double sum = 0;
  for (const double mass : mass_) sum += mass;
  return sum;
}

BinnedWeights::Place BinnedWeights::reach(double target) const {
  target = std::min(target, total());  // rounding may have put it an ulp beyond
  double before = 0;
  std::int32_t bin = 0;  // the first to reach the target; the sums are those of total()
  while (bin + 1 < kBins && before + mass_[static_cast<std::size_t>(bin)] < target)
    before += mass_[static_cast<std::size_t>(bin++)];
  Place place{0, before};
  // In this order a bin's sum may round below the target: then its last token with a weight it is.
  for (const Candidate& c : sorted_bin(bin)) {
    if (c.value == 0) break;
    place = {c.token, place.sum + c.value};
    if (place.sum >= target) break;
  }
  return place;
}

double BinnedWeights::sum_at_least(double weight) const {
  const auto bound =
      static_cast<float>(static_cast<double>(largest_) + temperature_ * std::log(weight));
  std::int32_t last = 0;
  bins_of({&bound, 1}, &last);
  double sum = 0;
  for (std::int32_t bin = 0; bin < last; ++bin) sum += mass_[static_cast<std::size_t>(bin)];
  for (const Candidate& c : sorted_bin(last))
    if (c.value >= weight) sum += c.value;
  return sum;
}

std::vector<Candidate> BinnedWeights::sorted_bin(std::int32_t bin) const {
  std::vector<Candidate> found;
  std::array<std::int32_t, kChunk> bins;
  for (std::size_t first = 0; first < logits_.size(); first += kChunk) {
    const auto chunk = logits_.subspan(first, std::min(kChunk, logits_.size() - first));
    bins_of(chunk, bins.data());
    for (std::size_t i = 0; i < chunk.size(); ++i)
      if (bins[i] == bin)
        found.push_back({static_cast<std::int32_t>(first + i), static_cast<double>(chunk[i])});
  }
  if (!std::is_sorted(found.begin(), found.end(), more_likely))
    std::sort(found.begin(), found.end(), more_likely);
  for (Candidate& c : found) {
    const auto logit = static_cast<float>(c.value);
    float weight = 0;
    weigh({&logit, 1}, &weight);
    c.value = static_cast<double>(weight);
  }
  return found;
}

}  // namespace bitnet
