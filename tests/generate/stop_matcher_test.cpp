// SPDX-License-Identifier: MIT
#include "core/generate/stop_matcher.h"

#include "core/base/error.h"
#include "tests/support/catch.h"

using namespace bitnet;

namespace {

struct Outcome {
  std::string text;
  bool stopped = false;
  bool operator==(const Outcome&) const = default;
};

Outcome run(std::vector<std::string> stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(std::move(stops));
  Outcome outcome;
  for (const std::string& piece : pieces) {
    outcome.stopped = matcher.feed(piece, outcome.text);
    if (outcome.stopped) break;
  }
  outcome.text += matcher.finish();
  return outcome;
}

}  // namespace

TEST_CASE("text passes unchanged when there is no stop string in it") {
  CHECK(run({}, {"ab", "c"}) == Outcome{"abc", false});
  CHECK(run({"xyz"}, {"ab", "xy", "c"}) == Outcome{"abxyc", false});
}

TEST_CASE("a stop string and what follows it are not given out, even across pieces") {
  CHECK(run({"END"}, {"one E", "N", "D two"}) == Outcome{"one ", true});
  CHECK(run({"END"}, {"ENEND"}) == Outcome{"EN", true});
  CHECK(run({"aab"}, {"a", "a", "a", "b"}) == Outcome{"a", true});
}

TEST_CASE("of several stop strings the first to be complete counts, the longest of those") {
  CHECK(run({"abcd", "bc"}, {"xabcd"}) == Outcome{"xa", true});
  CHECK(run({"c", "abc"}, {"xabc"}) == Outcome{"x", true});
}

TEST_CASE("only what may become a stop string is held back, and the end gives it out") {
  StopMatcher matcher({"stop"});
  std::string out;
  CHECK_FALSE(matcher.feed("non", out));
  CHECK(out == "non");
  CHECK_FALSE(matcher.feed("sto", out));
  CHECK(out == "non");
  CHECK_FALSE(matcher.feed("s", out));  // "sto" cannot become "stop" any more, but the new "s" can
  CHECK(out == "nonsto");
  CHECK(matcher.finish() == "s");
  CHECK(matcher.finish().empty());
}

TEST_CASE("an empty stop string is refused") {
  CHECK_THROWS_AS(StopMatcher({"a", ""}), UsageError);
}
