// SPDX-License-Identifier: MIT
#include "core/generate/sampler.h"

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "core/base/error.h"
#include "tests/support/catch.h"

using namespace bitnet;

namespace {

// ln 8, ln 4, ln 2, ln 1, ln 1: probabilities 8, 4, 2, 1 and 1 sixteenths, in shuffled order.
const std::vector<float> kLogits = {std::log(2.0f), std::log(8.0f), 0.0f, std::log(4.0f), 0.0f};

SamplerOptions plain() {
  SamplerOptions options;
  options.temperature = 1.0;
  return options;
}

// How often each token comes up in `draws` draws.
std::vector<int> count(const SamplerOptions& options, int draws,
                       std::span<const std::int32_t> history = {}) {
  const Sampler sampler(options);
  std::vector<int> counts(kLogits.size());
  for (int i = 0; i < draws; ++i)
    ++counts[static_cast<std::size_t>(
        sampler.sample(kLogits, history, static_cast<std::uint64_t>(i)))];
  return counts;
}

std::set<std::size_t> possible(const SamplerOptions& options,
                               std::span<const std::int32_t> history = {}) {
  const std::vector<int> counts = count(options, 1000, history);
  std::set<std::size_t> tokens;
  for (std::size_t i = 0; i < counts.size(); ++i)
    if (counts[i] > 0) tokens.insert(i);
  return tokens;
}

using Tokens = std::set<std::size_t>;

}  // namespace

TEST_CASE("greedy takes the largest logit and of equal ones the lowest id") {
  SamplerOptions options = plain();
  options.greedy = true;
  CHECK(Sampler(options).sample(kLogits, {}, 0) == 1);
  CHECK(Sampler(options).sample(std::vector<float>{1, 3, 3, 2, 3}, {}, 0) == 1);
  options.greedy = false;
  options.temperature = 0;
  CHECK(Sampler(options).sample(std::vector<float>{-1, -1}, {}, 5) == 0);
}

TEST_CASE("at temperature 1 tokens come up as often as their probability says") {
  const int draws = 16000;
  const std::vector<int> counts = count(plain(), draws);
  const double expected[] = {2, 8, 1, 4, 1};
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double p = expected[i] / 16, deviation = std::sqrt(draws * p * (1 - p));
    CHECK(std::abs(counts[i] - draws * p) <= 5 * deviation);
  }
}

TEST_CASE("temperature sharpens and flattens") {
  SamplerOptions options = plain();
  const int middle = count(options, 4000)[1];
  options.temperature = 0.5;
  CHECK(count(options, 4000)[1] > middle);
  options.temperature = 2;
  CHECK(count(options, 4000)[1] < middle);
  options.temperature = 1e-300;  // the differences overflow, the choice is greedy
  CHECK(possible(options) == Tokens{1});
}

TEST_CASE("top-k keeps the k largest, of equal ones the lower ids") {
  SamplerOptions options = plain();
  options.top_k = 1;
  CHECK(possible(options) == Tokens{1});
  options.top_k = 4;
  CHECK(possible(options) == Tokens{0, 1, 2, 3});
  options.top_k = 99;
  CHECK(possible(options) == Tokens{0, 1, 2, 3, 4});
}

TEST_CASE("top-p keeps the fewest tokens that reach p") {
  SamplerOptions options = plain();
  options.top_p = 0.4;  // 8/16 is enough
  CHECK(possible(options) == Tokens{1});
  options.top_p = 0.7;  // 12/16
  CHECK(possible(options) == Tokens{1, 3});
  options.top_p = 0.8;  // 14/16
  CHECK(possible(options) == Tokens{0, 1, 3});
  options.top_p = 1e-9;
  CHECK(possible(options) == Tokens{1});
}

TEST_CASE("top-p measures shares of what top-k left") {
  SamplerOptions options = plain();
  options.top_k = 2;    // 8/12 and 4/12
  options.top_p = 0.6;  // 8/12 is enough, 8/16 would not be
  CHECK(possible(options) == Tokens{1});
}

TEST_CASE("min-p keeps tokens with a share of the largest probability") {
  SamplerOptions options = plain();
  options.min_p = 0.4;  // at least 3.2/16
  CHECK(possible(options) == Tokens{1, 3});
  options.min_p = 0.2;  // at least 1.6/16
  CHECK(possible(options) == Tokens{0, 1, 3});
  options.min_p = 1;
  CHECK(possible(options) == Tokens{1});
}

TEST_CASE("the repetition penalty divides positive logits and multiplies the others, once each") {
  SamplerOptions options;
  options.greedy = true;
  options.repetition_penalty = 2;
  const std::vector<std::int32_t> twice = {1, 1};
  CHECK(Sampler(options).sample(std::vector<float>{3, 4, 1}, {}, 0) == 1);
  CHECK(Sampler(options).sample(std::vector<float>{3, 4, 1}, twice, 0) == 0);     // 4 / 2 < 3
  CHECK(Sampler(options).sample(std::vector<float>{1.5f, 4, 1}, twice, 0) == 1);  // not 4 / 4
  CHECK(Sampler(options).sample(std::vector<float>{-3, -2, -9}, twice, 0) == 0);  // -2 * 2 < -3
}

TEST_CASE("the repetition penalty forgets tokens further back than its window") {
  SamplerOptions options;
  options.greedy = true;
  options.repetition_penalty = 2;
  std::vector<std::int32_t> history(static_cast<std::size_t>(kRepetitionWindow), 2);
  history.front() = 1;
  CHECK(Sampler(options).sample(std::vector<float>{3, 4, 0}, history, 0) == 0);
  history.push_back(2);
  CHECK(Sampler(options).sample(std::vector<float>{3, 4, 0}, history, 0) == 1);
}

TEST_CASE("a sample depends on the seed and the index alone") {
  SamplerOptions options = plain();
  const Sampler a(options), b(options);
  options.seed = 1;
  const Sampler other(options);
  bool differs = false;
  for (std::uint64_t i = 0; i < 100; ++i) {
    CHECK(a.sample(kLogits, {}, i) == b.sample(kLogits, {}, i));
    differs = differs || a.sample(kLogits, {}, i) != other.sample(kLogits, {}, i);
  }
  CHECK(differs);
}

TEST_CASE("tokens with a logit of -infinity never come up") {
  const float none = -std::numeric_limits<float>::infinity();
  const Sampler sampler(plain());
  for (std::uint64_t i = 0; i < 100; ++i)
    CHECK(sampler.sample(std::vector<float>{none, 0, none}, {}, i) == 1);
}

TEST_CASE("logits that are not numbers are an error, not a token") {
  const float infinity = std::numeric_limits<float>::infinity();
  const Sampler sampler(plain());
  CHECK_THROWS_AS(sampler.sample(std::vector<float>{0, std::nanf("")}, {}, 0), Error);
  CHECK_THROWS_AS(sampler.sample(std::vector<float>{0, infinity}, {}, 0), Error);
  CHECK_THROWS_AS(sampler.sample(std::vector<float>{-infinity, -infinity}, {}, 0), Error);
}

TEST_CASE("sampler options out of range are refused") {
  const auto refuses = [](auto change) {
    SamplerOptions options;
    change(options);
    CHECK_THROWS_AS(Sampler(options), UsageError);
  };
  refuses([](SamplerOptions& o) { o.temperature = -1; });
  refuses([](SamplerOptions& o) { o.temperature = std::nan(""); });
  refuses([](SamplerOptions& o) { o.top_k = -1; });
  refuses([](SamplerOptions& o) { o.top_p = 0; });
  refuses([](SamplerOptions& o) { o.top_p = 1.5; });
  refuses([](SamplerOptions& o) { o.min_p = -0.1; });
  refuses([](SamplerOptions& o) { o.min_p = std::nan(""); });
  refuses([](SamplerOptions& o) { o.repetition_penalty = 0; });
  refuses([](SamplerOptions& o) { o.repetition_penalty = 1e-308; });
  refuses([](SamplerOptions& o) { o.repetition_penalty = 1e308; });
}
