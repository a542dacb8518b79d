// SPDX-License-Identifier: MIT
#include "core/checkpoint/model_config_json.h"

#include <nlohmann/json.hpp>

#include "core/base/config_io.h"
#include "core/base/error.h"

namespace bitnet {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// Without these the model is another one, and the defaults of programs differ.
constexpr const char* kRequiredKeys[] = {
    "vocab_size",          "hidden_size",         "intermediate_size",       "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rope_theta",
    "rms_norm_eps",        "hidden_act",          "tie_word_embeddings"};

const char* model_type_of(const ModelConfig& c) {
  const bool plain_linear =
      c.linear == "float" || (c.linear == "b158" && c.weight_scale == "absmean" &&
                              c.weight_group_size == 0 && c.activation_bits == 8);
  if (!plain_linear || c.norm != "rmsnorm" || !c.norm_gain || !c.gated_mlp) return "bitnet_native";
  return c.use_sub_norms ? "bitnet" : "llama";
}

std::string architecture_of(std::string_view model_type) {
  if (model_type == "bitnet") return "BitNetForCausalLM";
  return model_type == "llama" ? "LlamaForCausalLM" : "BitNetNativeForCausalLM";
}

std::string text_or(const json& object, const char* key, const char* otherwise) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : otherwise;
}

void check_quant_method(const json& object, const std::string& path) {
  const std::string method = text_or(object["quantization_config"], "quant_method", "");
  if (method != "bitnet") {
    throw FormatError(path, 0,
                      fmt::format("quantization_config: quant_method is {}, expected 'bitnet'",
                                  printable(method)));
  }
}

}  // namespace

ordered_json config_to_json(const ModelConfig& original, WeightForm form, FloatDtype dtype) {
  ModelConfig config = resolved(original);
  const char* const model_type = model_type_of(config);
  ordered_json object;
  object["architectures"] = {architecture_of(model_type)};
  object["model_type"] = model_type;
  object["torch_dtype"] = dtype == FloatDtype::bf16 ? "bfloat16" : "float32";
  object.update(write_fields([&](FieldVisitor& visitor) { config.visit_fields(visitor); }));
  object["attention_bias"] = false;
  object["attention_dropout"] = 0.0;
  if (config.vocab_size <= kByteValues) {  // byte 0; other ids are the tokenizer's affair
    object["bos_token_id"] = 0;
    object["eos_token_id"] = 0;
  }
  object["use_cache"] = true;
  if (config.quantized()) object["quantization_config"] = quantization_config_json(form);
  return object;
}

ordered_json quantization_config_json(WeightForm form) {
  return {{"quant_method", "bitnet"},
          {"linear_class", "autobitlinear"},
          {"quantization_mode", form == WeightForm::packed ? "offline" : "online"}};
}

ModelConfig config_from_json(const json& original, const std::string& path) {
  const auto refuse = [&](const std::string& reason) { throw FormatError(path, 0, reason); };
  if (!original.is_object()) refuse("the model configuration is not a JSON object");
  json object = original;
  for (auto it = object.begin(); it != object.end();) {  // Hugging Face: null is "as if absent"
    it = it->is_null() ? object.erase(it) : std::next(it);
  }

  const std::string model_type = text_or(object, "model_type", "");
  if (model_type != "bitnet" && model_type != "llama" && model_type != "bitnet_native") {
    refuse(fmt::format("model_type is {}, expected 'bitnet', 'llama' or 'bitnet_native'",
                       printable(model_type)));
  }
  for (const char* key : kRequiredKeys) {
    if (!object.contains(key)) refuse(fmt::format("the model configuration lacks '{}'", key));
  }
  if (object.contains("rope_scaling")) refuse("rope_scaling is not supported, expected null");

  ModelConfig config;
  if (model_type == "llama") apply_profile("llama", config);
  if (object.contains("quantization_config")) {
    check_quant_method(object, path);
  } else {
    config.linear = "float";  // unless the key says otherwise
  }
  try {
    read_fields(
        object, "config", [&](FieldVisitor& visitor) { config.visit_fields(visitor); },
        UnknownKeys::ignore);
    config.validate();
  } catch (const UsageError& error) {
    refuse(error.what());
  }
  return config;
}

void check_scale_sense(const json& object, const std::string& path) {
  const auto found = object.find("quantization_config");
  const std::string linear_class =
      found == object.end() ? "" : text_or(*found, "linear_class", "bitlinear");
  if (linear_class == "autobitlinear") return;
  throw FormatError(path, 0,
                    fmt::format("the weights are packed, but quantization_config.linear_class is "
                                "{}, expected 'autobitlinear': whether "
                                "weight_scale multiplies or divides is not known",
                                linear_class.empty() ? "absent" : printable(linear_class)));
}

ModelConfig resolved(ModelConfig config) {
  config.num_key_value_heads = config.kv_heads();
  config.head_dim = config.head_size();
  return config;
}

}  // namespace bitnet
