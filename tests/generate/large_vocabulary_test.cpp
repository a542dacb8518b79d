// SPDX-License-Identifier: MIT
// Sampling from a vocabulary that is not sorted, against a sampler that sorts all of it.
#include "core/generate/large_vocabulary.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/generate/sampler.h"
#include "tests/support/catch.h"

using namespace bitnet;

namespace {

constexpr std::size_t kTokens = 10007;  // past the bound of sorting, and no whole blocks

// Normal, some much larger, some equal, some impossible.
std::vector<float> make_logits(double deviation, double peak) {
  const RandomStream random{3, RandomPurpose::test, 0};
  std::vector<float> logits(kTokens);
  for (std::size_t i = 0; i < kTokens; ++i) {
    logits[i] = static_cast<float>(deviation * random.normal(i));
    if (i % 1000 == 7) logits[i] += static_cast<float>(peak);
    if (i % 97 == 0) logits[i] = logits[96];
    if (i % 101 == 0) logits[i] = -std::numeric_limits<float>::infinity();
  }
  return logits;
}

// The documented steps 1 and 3 to 7, all in double: what remains, the most likely first.
std::vector<Candidate> remaining(std::span<const float> logits, const SamplerOptions& o,
                                 std::span<const std::int32_t> history) {
  std::vector<Candidate> all;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    double logit = static_cast<double>(logits[i]);
    if (std::find(history.begin(), history.end(), static_cast<std::int32_t>(i)) != history.end())
      logit = logit > 0 ? logit / o.repetition_penalty : logit * o.repetition_penalty;
    all.push_back({static_cast<std::int32_t>(i), logit});
  }
  std::sort(all.begin(), all.end(), more_likely);
  if (o.top_k > 0) all.resize(std::min(all.size(), static_cast<std::size_t>(o.top_k)));
  const double largest = all.front().value;
  double total = 0;
  for (Candidate& c : all) total += c.value = std::exp((c.value - largest) / o.temperature);
  double sum = 0;
  std::size_t kept = 0;
  while (kept < all.size() && (kept == 0 || sum < o.top_p * total) && all[kept].value >= o.min_p)
    sum += all[kept++].value;
  all.resize(kept);
  for (Candidate& c : all) c.value /= sum;
  return all;
}

// Each token drawn is the one whose share of [0, 1) holds the chance, give or take the rounding of
// fp32 weights: 2^-21 each and that of their exponents, up to 2^-24 · 32 at what can still matter;
// top-p may keep one token more or less, which shifts all by its probability.
void check_draws(std::span<const float> logits, SamplerOptions o,
                 std::span<const std::int32_t> history = {}) {
  o.seed = 5;
  const std::vector<Candidate> expected = remaining(logits, o, history);
  const double slack = 1e-5 + (o.top_p < 1 || o.min_p > 0 ? 2 * expected.back().value : 0);
  const Sampler sampler(o);
  for (std::uint64_t index = 0; index < 60; ++index) {
    const double chance = RandomStream{5, RandomPurpose::sampling, 0}.uniform(index);
    const std::int32_t token = sampler.sample(logits, history, index);
    double before = 0;
    const auto found = std::find_if(expected.begin(), expected.end(), [&](const Candidate& c) {
      if (c.token == token) return true;
      before += c.value;
      return false;
    });
    REQUIRE(found != expected.end());
    CHECK(chance >= before - slack);
    CHECK(chance <= before + found->value + slack);
  }
}

SamplerOptions with_temperature(double temperature) {
  SamplerOptions options;
  options.temperature = temperature;
  return options;
}

}  // namespace

TEST_CASE("large vocabularies are sampled as if they were sorted") {
  const double deviation = GENERATE(0.02, 1.0, 4.0);
  const std::vector<float> logits = make_logits(deviation, deviation > 1 ? 12 : 0);
  const double temperature = GENERATE(0.8, 2.5);
  SamplerOptions o = with_temperature(temperature);
  check_draws(logits, o);
  o.top_p = 0.7;
  check_draws(logits, o);
  o.min_p = 0.3;
  check_draws(logits, o);
  o.top_p = 1;
  check_draws(logits, o);
  o = with_temperature(temperature);
  o.top_k = 40;
  check_draws(logits, o);
  o.top_p = 0.6;
  check_draws(logits, o);
  const std::vector<std::int32_t> history = {7, 1007, 2007, 96, 4};
  o = with_temperature(temperature);
  o.repetition_penalty = 1.7;
  check_draws(logits, o, history);
  o.top_k = 5000;
  check_draws(logits, o, history);
}

TEST_CASE("greedy takes the largest of a large vocabulary, of equal ones the lowest id") {
  std::vector<float> logits = make_logits(1, 0);
  SamplerOptions o;
  o.greedy = true;
  logits[9000] = logits[4321] = logits[5000] = 100;
  CHECK(Sampler(o).sample(logits, {}, 0) == 4321);
  o.repetition_penalty = 3;
  CHECK(Sampler(o).sample(logits, std::vector<std::int32_t>{4321}, 0) == 5000);
  std::vector<float> zeros(kTokens, 0.0f);
  zeros[11] = -0.0f;  // equal to the others
  zeros[3] = -1;
  zeros[0] = zeros[1] = zeros[2] = -1;
  zeros[4] = -0.0f;
  CHECK(LogitScan(zeros).argmax() == 4);
}

TEST_CASE("equal logits, and a temperature of next to nothing, make no difference of a bin") {
  const std::vector<float> same(kTokens, -3.5f);
  check_draws(same, with_temperature(1));
  const std::vector<float> logits = make_logits(1, 20);
  const std::int32_t best = LogitScan(logits).argmax();
  for (const double temperature : {1e-3, 1e-30, 1e-300})
    CHECK(Sampler(with_temperature(temperature)).sample(logits, {}, 1) == best);
}

TEST_CASE("a large vocabulary's logits that are not numbers are an error") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {infinity, std::nanf(""), -std::nanf("")}) {
    std::vector<float> logits(kTokens, 0.0f);
    logits[8765] = bad;
    CHECK_THROWS_WITH(Sampler({}).sample(logits, {}, 0), Catch::Contains("token 8765"));
  }
  CHECK_THROWS_AS(Sampler({}).sample(std::vector<float>(kTokens, -infinity), {}, 0),
                  NonFiniteError);
}

TEST_CASE("the largest logits are found by their blocks") {
  const std::vector<float> logits = make_logits(1, 5);
  std::vector<float> sorted = logits;
  std::sort(sorted.rbegin(), sorted.rend());
  for (const std::size_t k : {1, 2, 31, 300, 313, 314, 10007}) {
    const auto found = LogitScan(logits).largest(k);
    CHECK(found.size() >= k);
    for (std::size_t i = 0; i < k; ++i)
      CHECK(std::count_if(found.begin(), found.end(), [&](const Candidate& c) {
              return c.value >= static_cast<double>(sorted[i]);
            }) > static_cast<std::ptrdiff_t>(i));
  }
}
