// SPDX-License-Identifier: MIT
// config.json as the classes of `transformers` read it: their keys, their defaults, and what they
// compute that we do not.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/checkpoint/model_config_json.h"
#include "core/tokenizer/tokenizer.h"

namespace bitnet {

struct HuggingFaceConfig {
  // `linear` is b158 where the file says that the projections are quantised, else float.
  ModelConfig config;
  // quantization_mode "online": the weights are latent ones, quantised in every forward pass.
  bool online = false;
  // Of packed weights. linear_class "autobitlinear" multiplies by weight_scale; "bitlinear", which
  // is also what an absent key means, divides. The numbers cannot tell.
  bool scale_divides = false;
  // 1bitLLM's names: self_attn.inner_attn_ln and mlp.ffn_layernorm are the sub-norms.
  bool inner_norm_names = false;
};

// Absent keys have the defaults of LlamaConfig or BitNetConfig. Keys of ours that `transformers`
// does not know (gated_mlp, norm, …) count where they are present: an export by force has them.
// Throws FormatError (with `path`) for other kinds of model and, by name, for every feature that
// changes the function and that we do not compute.
HuggingFaceConfig read_hugging_face_config(const nlohmann::json& object, const std::string& path);

// What `transformers` would compute differently, one phrase each: "linear = b1", …; empty where its
// LlamaForCausalLM or BitNetForCausalLM computes the same function.
std::vector<std::string> transformers_differences(const ModelConfig& config, WeightForm form);

// The config.json for `transformers`, whose tensors it is to compute in `dtype`. With differences it
// has all of our keys, else none.
nlohmann::ordered_json hugging_face_config_json(const ModelConfig& config, WeightForm form,
                                                FloatDtype dtype, const Tokenizer& tokenizer);

// Sets bos_token_id and eos_token_id (a number, a list, or null) to the tokenizer's.
void set_special_token_ids(const Tokenizer& tokenizer, nlohmann::ordered_json& object);

}  // namespace bitnet
