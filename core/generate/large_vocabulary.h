// SPDX-License-Identifier: MIT
// What a sampler needs to choose among 10^5 tokens in some tenths of a millisecond: passes over the
// logits that compile to vector instructions, and sorting only of what decides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

struct Candidate {
  std::int32_t token;
  double value;  // logit, later its probability up to a common factor
};

// Of equal values the lower id comes first. An object, so that sorting compiles it in.
inline constexpr auto more_likely = [](const Candidate& a, const Candidate& b) {
  return a.value != b.value ? a.value > b.value : a.token < b.token;
};

// The logits with the largest one of every block of them, by which most blocks need no second look.
// Borrows the logits.
class LogitScan {
 public:
  // Throws NonFiniteError when a logit is NaN or +infinity, or all are -infinity.
  explicit LogitScan(std::span<const float> logits);

  std::size_t size() const { return logits_.size(); }
  float largest() const { return largest_; }
  std::int32_t argmax() const;  // of equal ones the lowest id

  // Every logit, in the order of the ids.
  std::vector<Candidate> all() const;
  // All logits of at least `bound`; it stops at `limit` of them.
  std::vector<Candidate> at_least(double bound, std::size_t limit) const;
  // The k largest and perhaps some more; k >= 1.
  std::vector<Candidate> largest(std::size_t k) const;

 private:
  friend class BinnedWeights;

  std::span<const float> logits_;
  std::vector<float> block_maxima_;
  float largest_ = 0, smallest_ = 0;
};

// e^((logit - largest) / temperature) of all tokens, summed by bins of about equal logits. The
// weights are fp32 numbers, their sums double. The cumulative sum meant below runs over the tokens
// in the order of more_likely().
class BinnedWeights {
 public:
  BinnedWeights(const LogitScan& scan, double temperature);  // temperature > 0; borrows the logits

  double total() const;
  // The token with which the cumulative sum reaches `target` <= total(), and that sum.
  struct Place {
    std::int32_t token;
    double sum;
  };
  Place reach(double target) const;
  // The sum over the tokens with at least this weight, which is below 1.
  double sum_at_least(double weight) const;

 private:
  // The tokens of a bin in order, their values the weights.
  std::vector<Candidate> sorted_bin(std::int32_t bin) const;
  void bins_of(std::span<const float> logits, std::int32_t* bins) const;
  void weigh(std::span<const float> logits, float* weights) const;

  std::span<const float> logits_;
  double temperature_;
  float largest_, per_degree_, bins_per_unit_;
  std::vector<double> mass_;  // of each bin
};

}  // namespace bitnet
