// SPDX-License-Identifier: MIT
#include "core/train/run_config.h"

#include "core/base/error.h"
#include "core/checkpoint/model_config_json.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

constexpr const char* kText = R"({
  "$schema": "config.schema.json",
  "model": {"profile": "bitnet-relu2", "hidden_size": 128, "max_position_embeddings": 64},
  "data": {"path": "text"},
  "train": {"max_steps": 7}  // a comment
})";

RunConfig read(const std::string& text, const std::vector<std::string>& settings = {}) {
  return read_run_config(text, "a.json", settings);
}

std::string message_of(const std::string& text, const std::vector<std::string>& settings = {}) {
  try {
    read(text, settings);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "no UsageError";
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

TEST_CASE("a run config is read section by section, absent keys keep their defaults") {
  const RunConfig config = read(kText);
  CHECK(config.model.hidden_size == 128);
  CHECK(config.data.path == "text");
  CHECK(config.train.max_steps == 7);
  CHECK(config.train.per_device_train_batch_size == TrainConfig().per_device_train_batch_size);
}

TEST_CASE("a profile is applied before the keys that are given") {
  CHECK(read(kText).model.hidden_act == "relu2");
  const RunConfig config =
      read(R"({"model": {"use_sub_norms": true, "profile": "llama"}, "data": {"path": "x"}})");
  CHECK(config.model.use_sub_norms);
  CHECK(config.model.profile == "llama");
  CHECK_FALSE(read(kText, {"model.profile=llama"}).model.use_sub_norms);
}

TEST_CASE("the sequence length of a run defaults to the model's context") {
  CHECK(read(kText).train.sequence_length == 64);
  CHECK(read(kText, {"train.sequence_length=32"}).train.sequence_length == 32);
  contains(message_of(kText, {"train.sequence_length=65"}), "max_position_embeddings = 64");
}

TEST_CASE("a setting is JSON where it can be, else a string, and the last one wins") {
  const RunConfig config =
      read(kText, {"train.max_steps=3", "train.learning_rate=2e-3", "data.path=some file",
                   "data.split=[0.8, 0.1, 0.1]", "train.max_steps=9", "train.sample_prompt=a=b.c"});
  CHECK(config.train.max_steps == 9);
  CHECK(config.train.learning_rate == 2e-3);
  CHECK(config.data.path == "some file");
  CHECK(config.data.split == std::vector<double>{0.8, 0.1, 0.1});
  CHECK(config.train.sample_prompt == "a=b.c");
}

TEST_CASE("an unknown section or key is refused with the nearest valid one") {
  contains(message_of(kText, {"train.max_stepz=3"}), "max_steps");
  contains(message_of(kText, {"trian.max_steps=3"}), "'train'");
  contains(message_of(R"({"modle": {}})"), "'model'");
  contains(message_of(R"({"model": {"hiden_size": 64}})"), "hidden_size");
  contains(message_of(R"({"model": {"profile": "bitnet-rel"}})"), "bitnet-relu2");
}

TEST_CASE("a malformed setting is refused and named") {
  const std::string setting =
      GENERATE("max_steps", "max_steps=3", "train.max_steps", "=", ".", "train.max_steps=many",
               "train.max_steps=0", "train=1", "train.sample_prompt=\xff", "data.split=0.5");
  contains(message_of(kText, {setting}), "--set");
}

TEST_CASE("a document that is no object of objects is refused") {
  const std::string text = GENERATE("[]", "3", R"({"model": 3})", R"({"train": [1]})");
  contains(message_of(text), "expected an object");
  CHECK_THROWS_AS(read("{"), FormatError);
}

TEST_CASE("values that do not fit together are refused") {
  contains(message_of(kText, {"train.adam_beta1=1"}), "adam_beta1");
  contains(message_of(kText, {"train.adam_epsilon=0"}), "adam_epsilon");
  contains(message_of(kText, {"train.sample_prompt="}), "sample_prompt");
  contains(message_of(kText, {"model.vocab_size=128"}), "vocab_size");
  contains(message_of(kText, {"model.linear=float", "train.quant_warmup_steps=5"}),
           "quant_warmup_steps");
}

ModelConfig initial_model(const std::string& linear) {
  ModelConfig config;
  config.linear = linear;
  config.vocab_size = 300;
  config.hidden_size = 128;
  config.max_position_embeddings = 64;
  return config;
}

RunConfig read_with_init(const std::string& text, const ModelConfig& initial,
                         const std::vector<std::string>& settings = {}) {
  std::vector<std::string> all = {"data.path=text", "train.init=some/model"};
  all.insert(all.end(), settings.begin(), settings.end());
  return read_run_config(text, "a.json", all, [&](const std::string& path) {
    CHECK(path == "some/model");
    return initial;
  });
}

TEST_CASE("a run that begins with a model takes its shape from it") {
  const ModelConfig initial = initial_model("b158");
  const RunConfig config = read_with_init("{}", initial);
  CHECK(config.model == resolved(initial));
  CHECK(config.train.sequence_length == 64);
  CHECK(config.train.init == "some/model");
  CHECK(read(write_run_config(config)) == config);  // needs the model no more
  const RunConfig given = read_with_init(
      R"({"model": {"hidden_size": 128, "dropout": 0.1, "num_key_value_heads": 0}})", initial);
  CHECK(given.model.dropout == 0.1);
  CHECK(given.model.vocab_size == 300);
}

TEST_CASE("a key that contradicts the model a run begins with is refused and named") {
  const auto message = [](const ModelConfig& initial, const std::string& setting) {
    try {
      read_with_init("{}", initial, {setting});
    } catch (const UsageError& e) {
      return std::string(e.what());
    }
    return std::string("no UsageError");
  };
  for (const std::string key :
       {"hidden_size=192", "vocab_size=301", "linear=b1", "linear=float", "weight_group_size=64",
        "max_position_embeddings=128", "use_sub_norms=false", "num_key_value_heads=2"}) {
    const std::string setting = "model." + key;
    contains(message(initial_model("b158"), setting), setting.substr(0, setting.find('=')) + " is");
  }
  contains(message(initial_model("b158"), "model.hidden_size=192"),
           "model.hidden_size is 192, but 128 of some/model");
  contains(message(initial_model("float"), "model.use_sub_norms=false"), "use_sub_norms");
}

TEST_CASE("the projections of a float model may become BitLinears of any kind") {
  const ModelConfig initial = initial_model("float");
  CHECK(read_with_init("{}", initial).model.linear == "float");
  CHECK(read_with_init("{}", initial, {"model.linear=b1"}).model.linear == "b1");
  const RunConfig config =
      read_with_init("{}", initial,
                     {"model.linear=b158", "model.weight_group_size=64",
                      "model.weight_scale=absmedian", "train.quant_warmup_steps=5"});
  CHECK(config.model.weight_group_size == 64);
}

TEST_CASE("a config that is written and read again is the same") {
  const RunConfig config =
      read(kText, {"train.learning_rate=0.1", "train.seed=77", "data.order=sequential"});
  CHECK(read(write_run_config(config)) == config);
}

TEST_CASE("a resumed run may change how long it trains, not what it trains") {
  const RunConfig before = read(kText);
  check_resumable(before, read(kText, {"train.max_steps=100", "train.learning_rate=1e-4",
                                       "data.path=elsewhere", "train.per_device_train_batch_size=4",
                                       "train.gradient_accumulation_steps=2"}));
  const std::string setting =
      GENERATE("model.hidden_size=192", "model.linear=b1", "data.order=sequential",
               "data.split=[0.8,0.1,0.1]", "data.tokenizer=x", "train.init=x", "train.seed=2",
               "train.sequence_length=32", "train.per_device_train_batch_size=4");
  CHECK_THROWS_AS(check_resumable(before, read(kText, {setting})), UsageError);
}

}  // namespace
}  // namespace bitnet
