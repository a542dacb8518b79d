// SPDX-License-Identifier: MIT
#include "core/data/data_config.h"

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

using Sizes = std::vector<std::size_t>;

Sizes split_sizes(std::size_t size, const std::vector<double>& split) {
  const std::vector<std::uint8_t> bytes(size);
  const DataSplits splits = split_bytes(bytes, split);
  return {splits.train.size(), splits.valid.size(), splits.test.size()};
}

TEST_CASE("the three splits follow each other in the order of the file") {
  const std::vector<std::uint8_t> bytes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  const DataSplits splits = split_bytes(bytes, {0.5, 0.3, 0.2});
  CHECK(splits.train.data() == bytes.data());
  CHECK(splits.valid.data() == bytes.data() + 5);
  CHECK(splits.test.data() == bytes.data() + 8);
  CHECK(splits.test.size() == 2);
}

TEST_CASE("fractions that add up to 1 lose no byte") {
  CHECK(split_sizes(100, {0.9, 0.05, 0.05}) == Sizes{90, 5, 5});
  CHECK(split_sizes(100'000'000, {0.9, 0.05, 0.05}) == Sizes{90'000'000, 5'000'000, 5'000'000});
  for (std::size_t size = 0; size < 300; ++size) {
    const Sizes sizes = split_sizes(size, {0.9, 0.05, 0.05});
    CHECK(sizes[0] + sizes[1] + sizes[2] == size);
  }
}

TEST_CASE("a part of the data can be left out or a split be empty") {
  CHECK(split_sizes(100, {0.5, 0.1, 0.1}) == Sizes{50, 10, 10});
  CHECK(split_sizes(100, {1.0, 0.0, 0.0}) == Sizes{100, 0, 0});
  CHECK(split_sizes(100, {0.0, 0.0, 0.0}) == Sizes{0, 0, 0});
  CHECK(split_sizes(0, {0.9, 0.05, 0.05}) == Sizes{0, 0, 0});
}

TEST_CASE("numbers above 1 are byte counts") {
  CHECK(split_sizes(100, {90, 5, 5}) == Sizes{90, 5, 5});
  CHECK(split_sizes(100, {10, 0, 1}) == Sizes{10, 0, 1});
}

TEST_CASE("byte counts larger than the data are refused with both sizes") {
  CHECK_THROWS_WITH(split_sizes(99, {90, 5, 5}),
                    "data.split asks for 100 bytes ([90, 5, 5]) but the data has 99; take smaller "
                    "counts, or fractions such as [0.9, 0.05, 0.05]");
  CHECK_THROWS_AS(split_sizes(99, {1e300, 5, 5}), UsageError);
  CHECK_THROWS_AS(split_sizes(99, {9e15, 9e15, 9e15}), UsageError);
}

TEST_CASE("a split that is neither fractions nor byte counts is refused") {
  const auto split = GENERATE(values<std::vector<double>>({{},
                                                           {1.0},
                                                           {0.5, 0.5},
                                                           {0.25, 0.25, 0.25, 0.25},
                                                           {0.9, 0.2, 0.1},
                                                           {1.5, 0.5, 1},
                                                           {90, 5, 0.5},
                                                           {-0.5, 0.5, 0.5},
                                                           {NAN, 0.5, 0.5},
                                                           {INFINITY, 1, 1}}));
  CHECK_THROWS_AS(split_sizes(1000, split), UsageError);
  DataConfig config;
  config.path = "text";
  config.split = split;
  CHECK_THROWS_AS(config.validate(), UsageError);
}

TEST_CASE("a data config is checked before anything is read") {
  DataConfig config;
  CHECK_THROWS_WITH(config.validate(),
                    "data.path is not set; name a file, e.g. --set data.path=data/enwik8");
  config.path = "text";
  CHECK_NOTHROW(config.validate());
  config.split = {90e6, 5e6, 5e6};
  CHECK_NOTHROW(config.validate());
  config.split = {0, 0.5, 0.5};
  CHECK_THROWS_AS(config.validate(), UsageError);
  config.split = {0.5, 0, 0};
  CHECK_NOTHROW(config.validate());
  config.order = "backwards";
  CHECK_THROWS_AS(config.validate(), UsageError);
}

TEST_CASE("the data section of a config is read from JSON, and unknown keys are refused") {
  DataConfig config;
  const auto visit = [&config](FieldVisitor& visitor) { config.visit_fields(visitor); };
  read_fields(
      nlohmann::json::parse(
          R"({"path": "data/enwik8", "split": [90000000, 5000000, 5000000], "order": "sequential"})"),
      "a.json: data", visit);
  CHECK(config == DataConfig{"data/enwik8", {90e6, 5e6, 5e6}, "sequential"});
  CHECK_THROWS_AS(read_fields(nlohmann::json{{"order", "shuffled"}}, "a.json: data", visit),
                  UsageError);
  CHECK_THROWS_AS(read_fields(nlohmann::json{{"spilt", {1, 0, 0}}}, "a.json: data", visit),
                  UsageError);
}

}  // namespace
}  // namespace bitnet
