// SPDX-License-Identifier: MIT
#include "core/base/config_io.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "tests/support/catch.h"

using namespace bitnet;
using nlohmann::json;

namespace {

struct Sample {
  bool tied = true;
  std::int64_t hidden_size = 64;
  double rope_theta = 1e4;
  std::string linear = "b158", name;
  std::vector<double> split;
  void visit_fields(FieldVisitor& v) {
    v.field("tied", tied, "");
    v.field("hidden_size", hidden_size, 1, 4096, "");
    v.field("rope_theta", rope_theta, 1, 1e9, "");
    v.field("linear", linear, {"b158", "b1", "float"}, "");
    v.field("name", name, {}, "");
    v.field("split", split, "");
  }
};

Sample read(const json& object, UnknownKeys unknown = UnknownKeys::refuse) {
  Sample sample;
  read_fields(
      object, "a.json: model", [&](FieldVisitor& v) { sample.visit_fields(v); }, unknown);
  return sample;
}

std::string refusal(const json& object) {
  try {
    read(object);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

std::string json_refusal(const std::string& text, JsonComments comments = JsonComments::allow) {
  try {
    parse_json(text, "f", comments, 100);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("present fields are read and absent ones keep their value") {
  const Sample sample = read({{"tied", false},
                              {"hidden_size", 128},
                              {"rope_theta", 5},
                              {"linear", "b1"},
                              {"split", {0.5, 1}},
                              {"$schema", "x"}});
  CHECK(sample.tied == false);
  CHECK(sample.hidden_size == 128);
  CHECK(sample.rope_theta == 5);
  CHECK(sample.linear == "b1");
  CHECK(sample.name.empty());
  CHECK(sample.split == std::vector<double>{0.5, 1});
}

TEST_CASE("fields are written in listed order and read back the same") {
  Sample sample;
  sample.name = "x";
  sample.split = {1, 2.5};
  sample.rope_theta = 0.1 + 1.2;
  const auto object = write_fields([&](FieldVisitor& v) { sample.visit_fields(v); });
  CHECK(object.begin().key() == "tied");
  const Sample again = read(json::parse(object.dump()));
  CHECK(again.rope_theta == sample.rope_theta);
  CHECK(again.split == sample.split);
  CHECK(again.name == "x");
}

TEST_CASE("an unknown key is refused with the nearest known one") {
  CHECK(refusal({{"hiden_size", 1}}) ==
        "a.json: model: unknown key 'hiden_size'; did you mean 'hidden_size'?");
  CHECK(refusal({{"zzzzzzzzzz", 1}}) == "a.json: model: unknown key 'zzzzzzzzzz'");
  CHECK(read({{"anything", 1}}, UnknownKeys::ignore).hidden_size == 64);
}

TEST_CASE("a wrong type or value is refused with what was expected and found") {
  CHECK(refusal(json::array()) == "a.json: model: expected an object, found an array of 0 values");
  CHECK(refusal({{"tied", 1}}) == "a.json: model: tied: expected true or false, found 1");
  CHECK(refusal({{"hidden_size", "64"}}) ==
        "a.json: model: hidden_size: expected an integer from 1 to 4096, found the string '64'");
  CHECK(refusal({{"hidden_size", 0}}) ==
        "a.json: model: hidden_size: expected an integer from 1 to 4096, found 0");
  CHECK(refusal({{"hidden_size", nullptr}}) ==
        "a.json: model: hidden_size: expected an integer from 1 to 4096, found null");
  CHECK(refusal({{"hidden_size", 64.5}}) != "accepted");
  CHECK(refusal({{"hidden_size", 1e300}}) != "accepted");
  CHECK(refusal({{"hidden_size", std::numeric_limits<std::uint64_t>::max()}}) != "accepted");
  CHECK(refusal({{"rope_theta", 0.5}}) ==
        "a.json: model: rope_theta: expected a number from 1 to 1000000000, found 0.5");
  CHECK(refusal({{"rope_theta", std::numeric_limits<double>::quiet_NaN()}}) != "accepted");
  CHECK(refusal({{"rope_theta", std::numeric_limits<double>::infinity()}}) != "accepted");
  CHECK(refusal({{"linear", "b185"}}) ==
        "a.json: model: linear: expected one of 'b158', 'b1', 'float', found the string 'b185'; "
        "did you mean 'b158'?");
  CHECK(refusal({{"name", 3}}) == "a.json: model: name: expected a string, found 3");
  CHECK(refusal({{"split", {1, "x"}}}) != "accepted");
  CHECK(refusal({{"split", 1}}) != "accepted");
}

TEST_CASE("an integer may be written with a decimal point") {
  CHECK(read({{"hidden_size", 128.0}}).hidden_size == 128);
  CHECK(read(json::parse("{\"hidden_size\": 1e3}")).hidden_size == 1000);
}

TEST_CASE("JSON may have comments where that is allowed") {
  CHECK(parse_json("{\"a\": 1 // one\n}", "f")["a"] == 1);
  CHECK(json_refusal("{\"a\": 1 // one\n}", JsonComments::refuse) != "accepted");
}

TEST_CASE("JSON that cannot be used is refused with its place") {
  CHECK(json_refusal("{\"a\": 1, \"a\": 2}") == "f: at byte 112: the key 'a' occurs twice");
  CHECK(json_refusal("{\"a\": {\"b\": 1}, \"b\": [{\"b\": 1}, {\"b\": 1}]}") == "accepted");
  CHECK(json_refusal(std::string(1000000, '[')) ==
        "f: at byte 165: JSON nested more than 64 levels deep");
  CHECK(json_refusal(std::string(64, '[') + std::string(64, ']')) == "accepted");
  CHECK(json_refusal("[1e999]").starts_with("f: at byte 107: not valid JSON: number overflow"));
  for (const char* bad : {"", "{", "{} {}", "\"\xff\"", "[1,]", "nul", "'a'", "\"a\nb\""}) {
    INFO(bad);
    CHECK(json_refusal(bad).starts_with("f: at byte 10"));
  }
}

TEST_CASE("a message about JSON is one short line") {
  const std::string message = json_refusal("\"" + std::string(100000, 'x') + "\n\"");
  CHECK(message.size() < 400);
  CHECK(message.find('\n') == std::string::npos);
}

TEST_CASE("the nearest word is the one with the fewest edits, if few enough") {
  const std::vector<std::string> words = {"learning_rate", "max_steps", "seed"};
  CHECK(nearest_word("learning_rte", words) == "learning_rate");
  CHECK(nearest_word("maxsteps", words) == "max_steps");
  CHECK(nearest_word("sede", words) == "seed");
  CHECK(nearest_word("x", words).empty());
  CHECK(nearest_word("", words).empty());
  CHECK(nearest_word(std::string(1000000, 'a'), words).empty());
}

TEST_CASE("printable text is quoted, escaped and cut") {
  CHECK(printable("a b") == "'a b'");
  CHECK(printable("a\n\xff") == "'a\\x0a\\xff'");
  CHECK(printable(std::string(1000, 'x')).size() < 100);
}
