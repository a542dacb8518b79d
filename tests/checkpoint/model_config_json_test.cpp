// SPDX-License-Identifier: MIT
#include "core/checkpoint/model_config_json.h"

#include <functional>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/tiny_model.h"

using namespace bitnet;
using nlohmann::json;

namespace {

json written(const ModelConfig& config, WeightForm form = WeightForm::latent,
             FloatDtype dtype = FloatDtype::f32) {
  return json::parse(config_to_json(config, form, dtype).dump());
}

std::string refusal(const std::function<void(json&)>& change) {
  json object = written(test::tiny_config());
  change(object);
  try {
    config_from_json(object, "config.json");
  } catch (const FormatError& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("every profile and kind survives config.json") {
  const std::string profile = GENERATE(from_range(profile_names()));
  const std::string linear = GENERATE("b158", "b1", "float");
  ModelConfig config = test::tiny_config(linear, profile);
  config.num_key_value_heads = 2;
  config.dropout = 0.1;
  config.rope_theta = 12345.678;
  config.activation_bits = 0;
  config.weight_group_size = 64;
  config.tie_word_embeddings = false;
  CHECK(config_from_json(written(config), "f") == resolved(config));
  CHECK(config_from_json(written(test::tiny_config(linear, profile)), "f") ==
        resolved(test::tiny_config(linear, profile)));
}

TEST_CASE("config.json holds what Hugging Face needs") {
  const json object = written(test::tiny_config());
  CHECK(object["architectures"] == json::array({"BitNetForCausalLM"}));
  CHECK(object["model_type"] == "bitnet");
  CHECK(object["torch_dtype"] == "float32");
  CHECK(object["num_key_value_heads"] == 4);  // not our 0
  CHECK(object["head_dim"] == 16);
  CHECK(object["tie_word_embeddings"] == true);
  CHECK(object["bos_token_id"] == 0);
  CHECK(object["eos_token_id"] == 0);
  ModelConfig with_tokenizer = test::tiny_config();
  with_tokenizer.vocab_size = 1000;  // whose ids the tokenizer knows
  CHECK_FALSE(written(with_tokenizer).contains("eos_token_id"));
  CHECK(object["quantization_config"] == json{{"quant_method", "bitnet"},
                                              {"linear_class", "autobitlinear"},
                                              {"quantization_mode", "online"}});
  const json packed = written(test::tiny_config(), WeightForm::packed, FloatDtype::bf16);
  CHECK(packed["quantization_config"]["quantization_mode"] == "offline");
  CHECK(packed["torch_dtype"] == "bfloat16");
}

TEST_CASE("model_type promises only what Hugging Face's class computes") {
  CHECK(written(test::tiny_config("", "bitnet-relu2"))["model_type"] == "bitnet");
  CHECK(written(test::tiny_config("", "llama"))["model_type"] == "llama");
  CHECK(written(test::tiny_config("", "llama"))["architectures"][0] == "LlamaForCausalLM");
  CHECK(written(test::tiny_config("", "bitnet-b1"))["model_type"] == "bitnet_native");
  CHECK(written(test::tiny_config("", "bitnet-faq"))["model_type"] == "bitnet_native");
  ModelConfig config = test::tiny_config();
  config.activation_bits = 0;
  CHECK(written(config)["model_type"] == "bitnet_native");
  const json twin = written(test::tiny_config("float"));
  CHECK(twin["model_type"] == "bitnet");
  CHECK(!twin.contains("quantization_config"));
}

TEST_CASE("a config.json of Hugging Face is understood") {
  const json object = json::parse(R"({
    "architectures": ["BitNetForCausalLM"], "auto_map": {"AutoConfig": "x"}, "model_type": "bitnet",
    "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "relu2", "hidden_size": 2560,
    "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 4096,
    "num_attention_heads": 20, "num_hidden_layers": 30, "num_key_value_heads": 5,
    "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "rope_scaling": null, "head_dim": null,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 128256,
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                            "quantization_mode": "offline"}})");
  const ModelConfig config = config_from_json(object, "f");
  CHECK(config.linear == "b158");
  CHECK(config.hidden_act == "relu2");
  CHECK(config.use_sub_norms);
  CHECK(config.kv_heads() == 5);
  CHECK(config.head_size() == 128);
  json llama = object;
  llama["model_type"] = "llama";
  llama["hidden_act"] = "silu";
  llama.erase("quantization_config");
  CHECK(!config_from_json(llama, "f").use_sub_norms);
  CHECK(config_from_json(llama, "f").linear == "float");
}

TEST_CASE("a configuration that cannot be used is refused") {
  CHECK(refusal([](json&) {}) == "accepted");
  CHECK(refusal([](json& o) { o["something_else"] = {1, 2}; }) == "accepted");
  CHECK(refusal([](json& o) { o = 3; }) ==
        "config.json: at byte 0: the model configuration is not a JSON object");
  CHECK(refusal([](json& o) { o["model_type"] = "gpt2"; }) ==
        "config.json: at byte 0: model_type is 'gpt2', expected 'bitnet', 'llama' or "
        "'bitnet_native'");
  CHECK(refusal([](json& o) { o.erase("model_type"); }) != "accepted");
  CHECK(refusal([](json& o) { o.erase("rope_theta"); }) ==
        "config.json: at byte 0: the model configuration lacks 'rope_theta'");
  CHECK(refusal([](json& o) { o["rope_theta"] = nullptr; }) ==
        "config.json: at byte 0: the model configuration lacks 'rope_theta'");
  CHECK(refusal([](json& o) {
          o["hidden_size"] = "64";
        }).find("hidden_size: expected an integer") != std::string::npos);
  CHECK(refusal([](json& o) { o["hidden_size"] = 65; }) != "accepted");
  CHECK(refusal([](json& o) { o["num_hidden_layers"] = 1e12; }) != "accepted");
  CHECK(refusal([](json& o) { o["rope_scaling"] = {{"rope_type", "llama3"}}; }) != "accepted");
  CHECK(refusal([](json& o) { o["quantization_config"]["quant_method"] = "gptq"; }) ==
        "config.json: at byte 0: quantization_config: quant_method is 'gptq', expected 'bitnet'");
  CHECK(refusal([](json& o) { o["quantization_config"] = 1; }) != "accepted");
  CHECK(refusal([](json& o) {
          o["head_dim"] = 256;
          o["max_position_embeddings"] = 1 << 24;
        }).find("rotary angles") != std::string::npos);
}

TEST_CASE("packed weights are read only when their scale is known to multiply") {
  json object = written(test::tiny_config(), WeightForm::packed);
  CHECK_NOTHROW(check_scale_sense(object, "f"));
  object["quantization_config"]["linear_class"] = "bitlinear";
  CHECK_THROWS_AS(check_scale_sense(object, "f"), FormatError);
  object["quantization_config"].erase("linear_class");
  CHECK_THROWS_AS(check_scale_sense(object, "f"), FormatError);
  object.erase("quantization_config");
  CHECK_THROWS_AS(check_scale_sense(object, "f"), FormatError);
}
