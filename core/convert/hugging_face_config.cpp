// SPDX-License-Identifier: MIT
#include "core/convert/hugging_face_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/config_io.h"
#include "core/base/error.h"

namespace bitnet {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// LlamaConfig's and BitNetConfig's, of transformers 4 and 5.
const json& class_defaults(bool bitnet) {
  static const json llama = {{"vocab_size", 32000},
                             {"hidden_size", 4096},
                             {"intermediate_size", 11008},
                             {"num_hidden_layers", 32},
                             {"num_attention_heads", 32},
                             {"hidden_act", "silu"},
                             {"max_position_embeddings", 2048},
                             {"rms_norm_eps", 1e-6},
                             {"rope_theta", 10000.0},
                             {"tie_word_embeddings", false}};
  static const json bitnet_defaults = {
      {"vocab_size", 128256},        {"hidden_size", 2560},
      {"intermediate_size", 6912},   {"num_hidden_layers", 30},
      {"num_attention_heads", 20},   {"num_key_value_heads", 5},
      {"hidden_act", "relu2"},       {"max_position_embeddings", 2048},
      {"rms_norm_eps", 1e-5},        {"rope_theta", 500000.0},
      {"tie_word_embeddings", false}};
  return bitnet ? bitnet_defaults : llama;
}

// Keys that change the function unless they have this value. null: whatever is there changes it.
struct Feature {
  const char* key;
  json neutral;
};
const std::vector<Feature>& refused_features() {
  static const std::vector<Feature> features = {{"attention_bias", false},
                                                {"mlp_bias", false},
                                                {"partial_rotary_factor", 1.0},
                                                {"num_local_experts", nullptr},
                                                {"num_experts", nullptr},
                                                {"logit_scale", 1.0},
                                                {"logits_scaling", 1.0},
                                                {"embedding_multiplier", 1.0},
                                                {"residual_multiplier", 1.0},
                                                {"attention_multiplier", nullptr},
                                                {"attn_logit_softcapping", nullptr},
                                                {"final_logit_softcapping", nullptr},
                                                {"use_qk_norm", false},
                                                {"qk_norm", false},
                                                {"clip_qkv", nullptr},
                                                {"use_rms_norm", false}};
  return features;
}

class ConfigReader {
 public:
  ConfigReader(const json& object, const std::string& path) : path_(path) {
    if (!object.is_object()) refuse("the model configuration is not a JSON object");
    object_ = object;
    for (auto it = object_.begin(); it != object_.end();) {  // null is "as if absent"
      // … but for this key it says "as many as query heads", whatever the class's default.
      if (it->is_null() && it.key() == "num_key_value_heads") *it = 0;
      it = it->is_null() ? object_.erase(it) : std::next(it);
    }
  }

  HuggingFaceConfig read() {
    check_class();
    check_features();
    take_rope();
    object_.insert(defaults().begin(), defaults().end());  // keeps what is there
    if (object_["hidden_act"] == "swish") object_["hidden_act"] = "silu";
    read_quantization();

    const bool sub_norms = bitnet_class_ || result_.inner_norm_names;
    apply_profile(!sub_norms                         ? "llama"
                  : object_["hidden_act"] == "relu2" ? "bitnet-relu2"
                                                     : "bitnet",
                  result_.config);
    result_.config.linear = quantized_ ? "b158" : "float";
    try {
      read_fields(
          object_, "config", [&](FieldVisitor& visitor) { result_.config.visit_fields(visitor); },
          UnknownKeys::ignore);
      result_.config.validate();
    } catch (const UsageError& error) {
      refuse(error.what());
    }
    return result_;
  }

 private:
  const json& defaults() const { return class_defaults(bitnet_class_); }

  void check_class() {
    const auto type = object_.find("model_type");
    const std::string name =
        type != object_.end() && type->is_string() ? type->get<std::string>() : "";
    if (name != "bitnet" && name != "llama") {
      refuse(
          fmt::format("model_type is {}, expected 'bitnet' or 'llama': models of other kinds are "
                      "not computed",
                      name.empty() ? "absent" : printable(name)));
    }
    bitnet_class_ = name == "bitnet";
    const json classes = object_.value("architectures", json::array());
    if (!classes.is_array()) refuse("architectures is not a list");
    for (const json& entry : classes) {
      const std::string text = entry.is_string() ? entry.get<std::string>() : entry.dump();
      // 1bitLLM's own class computes sub-norms and quantised projections under model_type "llama".
      if (text == "BitnetForCausalLM") {
        result_.inner_norm_names = true;
        bitnet_class_ = false;
      } else if (text != "LlamaForCausalLM" && text != "BitNetForCausalLM") {
        refuse(
            fmt::format("architectures holds {}, expected LlamaForCausalLM, BitNetForCausalLM or "
                        "BitnetForCausalLM",
                        printable(text)));
      }
    }
  }

  void check_features() {
    for (const Feature& feature : refused_features()) {
      const auto found = object_.find(feature.key);
      if (found == object_.end() || *found == feature.neutral) continue;
      refuse(fmt::format("{} = {} is not supported{}", feature.key, found->dump(),
                         feature.neutral.is_null()
                             ? ""
                             : fmt::format(", expected {} or none", feature.neutral.dump())));
    }
    const auto window = object_.find("sliding_window");
    if (window != object_.end() && object_.value("use_sliding_window", json(true)) != false)
      refuse(fmt::format("sliding_window = {} is not supported, expected none", window->dump()));
    const json layers = object_.value("layer_types", json::array());
    for (const json& type : layers) {
      if (type != "full_attention")
        refuse(fmt::format("layer_types holds {}, expected 'full_attention'", type.dump()));
    }
  }

  // Version 5 keeps rope_theta in rope_parameters; rope_scaling is the older name of that object.
  void take_rope() {
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      const auto found = object_.find(key);
      if (found == object_.end()) continue;
      if (!found->is_object()) refuse(fmt::format("{} is not an object", key));
      for (const auto& item : found->items()) {
        const json& value = item.value();
        if (item.key() == "rope_theta") {
          if (object_.contains("rope_theta") && object_["rope_theta"] != value)
            refuse(fmt::format("rope_theta is {}, but {}.rope_theta is {}",
                               object_["rope_theta"].dump(), key, value.dump()));
          theta_ = value;
          continue;
        }
        const bool neutral =
            value.is_null() ||
            ((item.key() == "rope_type" || item.key() == "type") && value == "default") ||
            (item.key() == "partial_rotary_factor" && value == 1.0);
        if (!neutral)
          refuse(
              fmt::format("{}.{} = {} is not supported: only plain rotary positions are "
                          "(rope_type 'default')",
                          key, printable(item.key()), printable(value.dump())));
      }
    }
    if (!theta_.is_null()) object_["rope_theta"] = theta_;
  }

  void read_quantization() {
    if (result_.inner_norm_names) {
      const json weights = object_.value("weight_bits", json(1)),
                 inputs = object_.value("input_bits", json(8));
      if (weights != 1 || inputs != 8)
        refuse(fmt::format("weight_bits = {} and input_bits = {}, expected 1 and 8", weights.dump(),
                           inputs.dump()));
      quantized_ = result_.online = true;
    }
    // Of converted models; where quantization_config is missing the weights are still a b1.58's.
    if (object_.value("is_bitnet_config", json(false)) == true) quantized_ = true;
    const auto found = object_.find("quantization_config");
    if (found == object_.end()) {
      result_.scale_divides = true;
      return;
    }
    if (!found->is_object()) refuse("quantization_config is not an object");
    const auto text = [&](const char* key, const char* otherwise) {
      const json value = found->value(key, json(otherwise));
      return value.is_string() ? value.get<std::string>() : value.dump();
    };
    const auto require = [&](const char* key, const std::string& value,
                             const std::vector<std::string>& allowed) {
      if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
      refuse(fmt::format("quantization_config.{} is {}, expected {}", key, printable(value),
                         fmt::join(allowed, " or ")));
    };
    require("quant_method", text("quant_method", ""), {"bitnet"});
    require("linear_class", text("linear_class", "bitlinear"), {"bitlinear", "autobitlinear"});
    require("quantization_mode", text("quantization_mode", "offline"), {"offline", "online"});
    if (const json own = found->value("use_rms_norm", json(false)); own != false && !own.is_null())
      refuse(
          "quantization_config.use_rms_norm is not supported: a norm with a gain in each "
          "projection");
    check_excepted(found->value("modules_to_not_convert", json()));
    quantized_ = true;
    result_.scale_divides = text("linear_class", "bitlinear") == "bitlinear";
    result_.online = result_.online || text("quantization_mode", "offline") == "online";
  }

  // A projection that stays in floats between quantised ones.
  void check_excepted(const json& modules) {
    if (modules.is_null()) return;
    if (!modules.is_array()) refuse("quantization_config.modules_to_not_convert is not a list");
    for (const json& module : modules) {
      const std::string name = module.is_string() ? module.get<std::string>() : module.dump();
      if (name == "lm_head" || name == "embed_tokens" || name == "model.embed_tokens" ||
          name == "norm" || name == "model.norm")
        continue;
      refuse(
          fmt::format("quantization_config.modules_to_not_convert holds {}: models with both "
                      "quantised and float projections are not computed",
                      printable(name)));
    }
  }

  [[noreturn]] void refuse(const std::string& reason) const { throw FormatError(path_, 0, reason); }

  std::string path_;
  json object_, theta_;
  HuggingFaceConfig result_;
  bool bitnet_class_ = false, quantized_ = false;
};

}  // namespace

HuggingFaceConfig read_hugging_face_config(const json& object, const std::string& path) {
  return ConfigReader(object, path).read();
}

std::vector<std::string> transformers_differences(const ModelConfig& c, WeightForm form) {
  std::vector<std::string> list;
  if (c.norm != "rmsnorm") list.push_back(fmt::format("norm = {}", c.norm));
  if (!c.norm_gain) list.emplace_back("norm_gain = false");
  if (!c.gated_mlp) list.emplace_back("gated_mlp = false");
  if (!c.quantized()) return list;
  // Packed codes and scales are what they are, however they were found.
  if (form == WeightForm::latent && c.linear != "b158")
    list.push_back(fmt::format("linear = {}", c.linear));
  if (form == WeightForm::latent && c.weight_scale != "absmean")
    list.push_back(fmt::format("weight_scale = {}", c.weight_scale));
  if (c.weight_group_size != 0)
    list.push_back(fmt::format("weight_group_size = {}", c.weight_group_size));
  if (c.activation_bits != 8)
    list.push_back(fmt::format("activation_bits = {}", c.activation_bits));
  return list;
}

ordered_json hugging_face_config_json(const ModelConfig& original, WeightForm form,
                                      FloatDtype dtype, const Tokenizer& tokenizer) {
  ModelConfig config = resolved(original);
  const bool bitnet = config.use_sub_norms;
  ordered_json object;
  object["architectures"] = {bitnet ? "BitNetForCausalLM" : "LlamaForCausalLM"};
  object["model_type"] = bitnet ? "bitnet" : "llama";
  object["torch_dtype"] = dtype == FloatDtype::bf16 ? "bfloat16" : "float32";
  ordered_json fields = write_fields([&](FieldVisitor& visitor) { config.visit_fields(visitor); });
  if (transformers_differences(config, form).empty()) {
    for (const char* key : {"profile", "dropout", "gated_mlp", "norm", "norm_gain", "use_sub_norms",
                            "linear", "weight_scale", "weight_group_size", "activation_bits"})
      fields.erase(key);
  }
  object.update(fields);
  // Version 5 looks here for rope_theta.
  object["rope_parameters"] = {{"rope_theta", config.rope_theta}, {"rope_type", "default"}};
  object["attention_bias"] = false;
  if (!bitnet) object["mlp_bias"] = false;
  object["attention_dropout"] = 0.0;
  set_special_token_ids(tokenizer, object);
  object["use_cache"] = true;
  if (config.quantized()) object["quantization_config"] = quantization_config_json(form);
  return object;
}

void set_special_token_ids(const Tokenizer& tokenizer, ordered_json& object) {
  const auto start = tokenizer.document_start();
  object["bos_token_id"] = start ? ordered_json(*start) : ordered_json();
  const auto ends = tokenizer.end_tokens();
  if (ends.size() == 1) {
    object["eos_token_id"] = ends[0];
  } else {
    object["eos_token_id"] =
        ends.empty() ? ordered_json()
                     : ordered_json(std::vector<std::int32_t>(ends.begin(), ends.end()));
  }
}

}  // namespace bitnet
