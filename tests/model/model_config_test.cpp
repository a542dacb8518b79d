// SPDX-License-Identifier: MIT
// Profiles, shape rules and the list of tensors.
#include "core/model/model_config.h"

#include "tests/support/catch.h"
#include "tests/support/tiny_model.h"

using namespace bitnet;
using test::tiny_config;

namespace {

// The message of the UsageError that validate() throws, or "" when it does not.
std::string refusal(const ModelConfig& config) {
  try {
    config.validate();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

template <typename Change>
std::string refusal_after(const Change& change) {
  ModelConfig config = tiny_config();
  change(config);
  return refusal(config);
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("profiles set what they stand for", "[model]") {
  const auto config = [](const char* profile) {
    ModelConfig c;
    apply_profile(profile, c);
    return c;
  };
  const ModelConfig bitnet = config("bitnet");
  CHECK(bitnet == ModelConfig{});
  CHECK((bitnet.hidden_act == "silu" && bitnet.gated_mlp && bitnet.use_sub_norms &&
         bitnet.norm_gain));
  CHECK((bitnet.norm == "rmsnorm" && bitnet.linear == "b158" && bitnet.tie_word_embeddings));
  const ModelConfig relu2 = config("bitnet-relu2");
  CHECK((relu2.hidden_act == "relu2" && relu2.gated_mlp && relu2.use_sub_norms && relu2.norm_gain));
  const ModelConfig faq = config("bitnet-faq");
  CHECK((faq.hidden_act == "silu" && faq.gated_mlp && faq.use_sub_norms && !faq.norm_gain &&
         faq.norm == "rmsnorm"));
  const ModelConfig b1 = config("bitnet-b1");
  CHECK((b1.hidden_act == "gelu" && !b1.gated_mlp && b1.use_sub_norms && !b1.norm_gain &&
         b1.norm == "layernorm"));
  CHECK(b1.linear == "b1");
  const ModelConfig llama = config("llama");
  CHECK((llama.hidden_act == "silu" && llama.gated_mlp && !llama.use_sub_norms && llama.norm_gain));
}

TEST_CASE("a profile leaves nothing of the one before it", "[model]") {
  for (const std::string& first : profile_names())
    for (const std::string& second : profile_names()) {
      ModelConfig twice, once;
      apply_profile(first, twice);
      apply_profile(second, twice);
      apply_profile(second, once);
      CHECK(twice == once);
    }
}

TEST_CASE("an unknown profile is refused with the list of profiles", "[model]") {
  ModelConfig config;
  CHECK_THROWS_AS(apply_profile("bitnett", config), UsageError);
  try {
    apply_profile("bitnett", config);
  } catch (const UsageError& error) {
    CHECK(contains(error.what(), "bitnett"));
    for (const std::string& name : profile_names()) CHECK(contains(error.what(), name));
  }
}

TEST_CASE("tiny and default configs are valid in every profile", "[model]") {
  for (const std::string& profile : profile_names()) {
    CHECK(refusal(tiny_config("", profile)) == "");
    ModelConfig config;
    apply_profile(profile, config);
    CHECK(refusal(config) == "");
  }
}

TEST_CASE("an impossible shape is refused with the rule and the value", "[model]") {
  const auto names = [](const std::string& message, const char* key, const char* value) {
    INFO(message);
    CHECK(contains(message, key));
    CHECK(contains(message, value));
  };
  names(refusal_after([](ModelConfig& c) { c.hidden_size = 96; }), "hidden_size", "96");
  names(refusal_after([](ModelConfig& c) { c.intermediate_size = 100; }), "intermediate_size",
        "100");
  names(refusal_after([](ModelConfig& c) { c.num_attention_heads = 3; }), "hidden_size", "3");
  names(refusal_after([](ModelConfig& c) { c.num_attention_heads = 8; }), "head_dim", "16");
  names(refusal_after([](ModelConfig& c) { c.head_dim = 24; }), "head_dim", "24");
  names(refusal_after([](ModelConfig& c) { c.head_dim = 16, c.num_attention_heads = 5; }),
        "num_attention_heads", "80");
  names(refusal_after([](ModelConfig& c) { c.head_dim = 272; }), "head_dim", "256");
  names(refusal_after([](ModelConfig& c) { c.max_position_embeddings = 1 << 25; }),
        "max_position_embeddings", "2^28");
  names(refusal_after([](ModelConfig& c) { c.num_key_value_heads = 3; }), "num_key_value_heads",
        "3");
  names(refusal_after([](ModelConfig& c) { c.activation_bits = 4; }), "activation_bits", "4");
  names(refusal_after([](ModelConfig& c) { c.weight_group_size = 32; }), "weight_group_size", "32");
  names(refusal_after([](ModelConfig& c) { c.weight_group_size = 128; }), "weight_group_size",
        "64");
  names(refusal_after([](ModelConfig& c) { c.linear = "b1", c.weight_scale = "absmedian"; }),
        "weight_scale", "b1");
}

TEST_CASE("the tensor list has Hugging Face's names and the shapes of the config", "[model]") {
  ModelConfig config = tiny_config();
  config.num_key_value_heads = 2;
  config.num_hidden_layers = 1;
  config.tie_word_embeddings = false;
  std::vector<std::string> lines;
  for (const TensorSpec& spec : list_tensors(config))
    lines.push_back(spec.name + " " + spec.shape.to_string());
  CHECK(lines == std::vector<std::string>{
                     "model.embed_tokens.weight [32, 64]",
                     "model.layers.0.input_layernorm.weight [64]",
                     "model.layers.0.self_attn.q_proj.weight [64, 64]",
                     "model.layers.0.self_attn.k_proj.weight [32, 64]",
                     "model.layers.0.self_attn.v_proj.weight [32, 64]",
                     "model.layers.0.self_attn.attn_sub_norm.weight [64]",
                     "model.layers.0.self_attn.o_proj.weight [64, 64]",
                     "model.layers.0.post_attention_layernorm.weight [64]",
                     "model.layers.0.mlp.gate_proj.weight [128, 64]",
                     "model.layers.0.mlp.up_proj.weight [128, 64]",
                     "model.layers.0.mlp.ffn_sub_norm.weight [128]",
                     "model.layers.0.mlp.down_proj.weight [64, 128]",
                     "model.norm.weight [64]",
                     "lm_head.weight [32, 64]",
                 });
}

TEST_CASE("profiles without gains list no norm, and without a gate no gate", "[model]") {
  for (const TensorSpec& spec : list_tensors(tiny_config("", "bitnet-b1"))) {
    CHECK(spec.role != TensorRole::norm_gain);
    CHECK(!contains(spec.name, "gate_proj"));
  }
  for (const TensorSpec& spec : list_tensors(tiny_config("", "llama")))
    CHECK(!contains(spec.name, "sub_norm"));
}

TEST_CASE("weight decay spares only the norm gains", "[model]") {
  for (const TensorSpec& spec : list_tensors(tiny_config()))
    CHECK(spec.decays() == (spec.shape.rank() == 2));
}
