// SPDX-License-Identifier: MIT
#include "core/convert/gguf_names.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/error.h"

namespace bitnet {
namespace {

// bitnet-25 is another name for bitnet-b1.58 in ik_llama.cpp.
constexpr GgufArch kArchs[] = {
    {.name = "bitnet",
     .profile = "bitnet",
     .hidden_act = "silu",
     .sub_norms = true,
     .scale_tensors = true,
     .output_tensor = false,
     .permuted = false,
     .own_head_width = false},
    {.name = "bitnet-b1.58",
     .profile = "bitnet-relu2",
     .hidden_act = "relu2",
     .sub_norms = true,
     .scale_tensors = false,
     .output_tensor = true,
     .permuted = false,
     .own_head_width = false},
    {.name = "bitnet-25",
     .profile = "bitnet-relu2",
     .hidden_act = "relu2",
     .sub_norms = true,
     .scale_tensors = false,
     .output_tensor = true,
     .permuted = false,
     .own_head_width = false},
    {.name = "llama",
     .profile = "llama",
     .hidden_act = "silu",
     .sub_norms = false,
     .scale_tensors = false,
     .output_tensor = true,
     .permuted = true,
     .own_head_width = true},
};

struct Name {
  std::string_view ours, gguf;
};
constexpr Name kModelTensors[] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                  {"model.norm.weight", "output_norm.weight"},
                                  {"lm_head.weight", "output.weight"}};
constexpr Name kLayerTensors[] = {{"input_layernorm.weight", "attn_norm.weight"},
                                  {"self_attn.q_proj.weight", "attn_q.weight"},
                                  {"self_attn.k_proj.weight", "attn_k.weight"},
                                  {"self_attn.v_proj.weight", "attn_v.weight"},
                                  {"self_attn.attn_sub_norm.weight", "attn_sub_norm.weight"},
                                  {"self_attn.o_proj.weight", "attn_output.weight"},
                                  {"post_attention_layernorm.weight", "ffn_norm.weight"},
                                  {"mlp.gate_proj.weight", "ffn_gate.weight"},
                                  {"mlp.up_proj.weight", "ffn_up.weight"},
                                  {"mlp.ffn_sub_norm.weight", "ffn_sub_norm.weight"},
                                  {"mlp.down_proj.weight", "ffn_down.weight"}};
constexpr std::string_view kLayerPrefix = "model.layers.", kWeight = ".weight";

}  // namespace

const GgufArch* find_gguf_arch(std::string_view name) {
  const auto* found = std::find_if(std::begin(kArchs), std::end(kArchs),
                                   [&](const GgufArch& arch) { return arch.name == name; });
  return found == std::end(kArchs) ? nullptr : found;
}

std::string gguf_arch_names() {
  std::string names;
  for (const GgufArch& arch : kArchs)
    names += fmt::format("{}{}", names.empty() ? "" : ", ", arch.name);
  return names;
}

std::string gguf_tensor_name(std::string_view ours) {
  for (const Name& name : kModelTensors) {
    if (name.ours == ours) return std::string(name.gguf);
  }
  if (ours.starts_with(kLayerPrefix)) {
    const std::string_view rest = ours.substr(kLayerPrefix.size());
    const std::size_t dot = std::min(rest.find('.'), rest.size());
    for (const Name& name : kLayerTensors) {
      if (dot < rest.size() && name.ours == rest.substr(dot + 1))
        return fmt::format("blk.{}.{}", rest.substr(0, dot), name.gguf);
    }
  }
  throw ContractError(fmt::format("GGUF has no name for tensor '{}'", ours));
}

std::string gguf_scale_name(std::string_view weight) {
  BITNET_CHECK(weight.ends_with(kWeight), "'{}' is not the name of a weight", weight);
  return std::string(weight.substr(0, weight.size() - kWeight.size())) + ".scale";
}

std::int64_t gguf_permuted_row(std::int64_t row, std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2, in_head = row % head_dim;
  return row - in_head + 2 * (in_head % half) + in_head / half;
}

bool gguf_permutes(const GgufArch& arch, std::string_view ours) {
  return arch.permuted && (ours.ends_with("q_proj.weight") || ours.ends_with("k_proj.weight"));
}

}  // namespace bitnet
