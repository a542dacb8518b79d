// SPDX-License-Identifier: MIT
#include "core/model/model_config.h"

#include <cmath>

namespace bitnet {
namespace {

struct Profile {
  const char* name;
  const char* hidden_act;
  bool gated_mlp;
  const char* norm;
  bool norm_gain;
  bool use_sub_norms;
  const char* linear;
};

constexpr Profile kProfiles[] = {
    {"bitnet", "silu", true, "rmsnorm", true, true, "b158"},
    {"bitnet-relu2", "relu2", true, "rmsnorm", true, true, "b158"},
    {"bitnet-faq", "silu", true, "rmsnorm", false, true, "b158"},
    {"bitnet-b1", "gelu", false, "layernorm", false, true, "b1"},
    {"llama", "silu", true, "rmsnorm", true, false, "b158"},
};

void require_multiple(const char* what, std::int64_t value, std::int64_t of, const char* why) {
  if (value % of != 0)
    throw UsageError(fmt::format("{} = {} must be a multiple of {}: {}", what, value, of, why));
}

}  // namespace

const std::vector<std::string>& profile_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const Profile& profile : kProfiles) list.emplace_back(profile.name);
    return list;
  }();
  return names;
}

void apply_profile(std::string_view name, ModelConfig& config) {
  for (const Profile& profile : kProfiles) {
    if (name != profile.name) continue;
    config.profile = profile.name;
    config.hidden_act = profile.hidden_act;
    config.gated_mlp = profile.gated_mlp;
    config.norm = profile.norm;
    config.norm_gain = profile.norm_gain;
    config.use_sub_norms = profile.use_sub_norms;
    config.linear = profile.linear;
    config.tie_word_embeddings = true;
    return;
  }
  throw UsageError(fmt::format("unknown profile '{}'; expected one of: {}", name,
                               fmt::join(profile_names(), ", ")));
}

void ModelConfig::visit_fields(FieldVisitor& v) {
  constexpr std::int64_t kWidth = 1 << 20;
  v.field("profile", profile, profile_names(), "set of defaults for the keys below");
  v.field("vocab_size", vocab_size, 2, 1 << 24, "number of token ids; 256 for bytes");
  v.field("hidden_size", hidden_size, 64, kWidth, "width of the residual stream, a multiple of 64");
  v.field("intermediate_size", intermediate_size, 64, kWidth,
          "width of the feed-forward, a multiple of 64");
  v.field("num_hidden_layers", num_hidden_layers, 1, 4096, "number of blocks");
  v.field("num_attention_heads", num_attention_heads, 1, 4096, "number of query heads");
  v.field("num_key_value_heads", num_key_value_heads, 0, 4096,
          "number of key/value heads; 0: as query heads");
  v.field("head_dim", head_dim, 0, 4096, "width of a head; 0: hidden_size / num_attention_heads");
  v.field("max_position_embeddings", max_position_embeddings, 1, 1 << 24,
          "context length in tokens");
  v.field("rope_theta", rope_theta, 1.0, 1e12, "base of the rotary position frequencies");
  v.field("rms_norm_eps", rms_norm_eps, 1e-12, 1.0, "added to the variance in every norm");
  v.field("initializer_range", initializer_range, 0.0, 10.0,
          "standard deviation of the initial weights");
  v.field("dropout", dropout, 0.0, 0.99,
          "probability after the embedding and on both branches of a block");
  v.field("tie_word_embeddings", tie_word_embeddings, "the head is the embedding table");
  v.field("hidden_act", hidden_act, {"silu", "relu2", "gelu"}, "feed-forward activation");
  v.field("gated_mlp", gated_mlp, "activation(gate) * up instead of activation(up)");
  v.field("norm", norm, {"rmsnorm", "layernorm"}, "kind of every norm");
  v.field("norm_gain", norm_gain,
          "norms have a learned gain; false is the norm inside each BitLinear");
  v.field("use_sub_norms", use_sub_norms, "also norm the inputs of o_proj and down_proj");
  v.field("linear", linear, {"b158", "b1", "float"}, "kind of the seven projections of a block");
  v.field("weight_scale", weight_scale, {"absmean", "absmedian"}, "measure of the ternary scale");
  v.field("weight_group_size", weight_group_size, 0, kWidth,
          "columns that share a scale; 0: the whole matrix");
  v.field("activation_bits", activation_bits, 0, 8,
          "8: int8 absmax per token; 0: weight-only quantisation");
}

WeightQuantizer ModelConfig::weight_quantizer() const {
  return {linear_kind(),
          weight_scale == "absmedian" ? ScaleMeasure::absmedian : ScaleMeasure::absmean,
          weight_group_size};
}

Activation ModelConfig::activation() const {
  if (hidden_act == "relu2") return Activation::relu2;
  return hidden_act == "gelu" ? Activation::gelu : Activation::silu;
}

void ModelConfig::require_token_ids(std::int64_t count) const {
  if (vocab_size < count)
    throw UsageError(fmt::format("model.vocab_size is {}, but {} at least {} token ids", vocab_size,
                                 count == kByteValues ? "bytes need" : "the tokenizer needs",
                                 count));
}

void ModelConfig::validate() const {
  const char* const kKernel = "the kernels read 64 inputs at a time";
  require_multiple("hidden_size", hidden_size, 64, kKernel);
  require_multiple("intermediate_size", intermediate_size, 64, kKernel);
  if (head_dim == 0)
    require_multiple("hidden_size", hidden_size, num_attention_heads, "it is split into the heads");
  require_multiple("head_dim", head_size(), 16, "attention works on 16 elements at a time");
  if (head_size() > 256)
    throw UsageError(fmt::format(
        "head_dim = {} must be at most 256: attention's tiles are made for that; use more heads",
        head_size()));
  if (max_position_embeddings > (std::int64_t{1} << 28) / head_size())
    throw UsageError(
        fmt::format("max_position_embeddings = {} x head_dim = {} is more than 2^28 rotary angles",
                    max_position_embeddings, head_size()));
  require_multiple("num_attention_heads x head_dim", num_attention_heads * head_size(), 64,
                   kKernel);
  require_multiple(
      "num_attention_heads", num_attention_heads, kv_heads(),
      "each key/value head serves a whole number of query heads (num_key_value_heads)");
  if (activation_bits != 0 && activation_bits != 8)
    throw UsageError(fmt::format(
        "activation_bits = {} must be 8, or 0 for weight-only quantisation", activation_bits));
  if (weight_group_size != 0) {
    const char* const kGroup = "a row is cut into whole groups (weight_group_size)";
    require_multiple("weight_group_size", weight_group_size, 64, kKernel);
    require_multiple("hidden_size", hidden_size, weight_group_size, kGroup);
    require_multiple("intermediate_size", intermediate_size, weight_group_size, kGroup);
    require_multiple("num_attention_heads x head_dim", num_attention_heads * head_size(),
                     weight_group_size, kGroup);
  }
  if (linear_kind() == LinearKind::b1 && weight_scale != "absmean")
    throw UsageError("linear = b1 uses the mean of |W| as its scale; set weight_scale to absmean");
}

std::vector<TensorSpec> list_tensors(const ModelConfig& c) {
  const std::int64_t hidden = c.hidden_size, ffn = c.intermediate_size;
  const std::int64_t query = c.num_attention_heads * c.head_size(),
                     kv = c.kv_heads() * c.head_size();
  const double std_dev = c.initializer_range;
  // The two projections that write to the residual stream start smaller, so that its variance does
  // not grow with depth (GPT-2).
  const double out_std = std_dev / std::sqrt(2.0 * static_cast<double>(c.num_hidden_layers));

  std::vector<TensorSpec> list;
  const auto norm = [&](std::string name, std::int64_t width) {
    if (c.norm_gain) list.push_back({std::move(name), {width}, TensorRole::norm_gain, 0});
  };
  list.push_back(
      {"model.embed_tokens.weight", {c.vocab_size, hidden}, TensorRole::embedding, std_dev});
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    const auto projection = [&](const char* name, std::int64_t rows, std::int64_t columns,
                                double init) {
      list.push_back({prefix + name + ".weight", {rows, columns}, TensorRole::projection, init});
    };
    norm(prefix + "input_layernorm.weight", hidden);
    projection("self_attn.q_proj", query, hidden, std_dev);
    projection("self_attn.k_proj", kv, hidden, std_dev);
    projection("self_attn.v_proj", kv, hidden, std_dev);
    if (c.use_sub_norms) norm(prefix + "self_attn.attn_sub_norm.weight", query);
    projection("self_attn.o_proj", hidden, query, out_std);
    norm(prefix + "post_attention_layernorm.weight", hidden);
    if (c.gated_mlp) projection("mlp.gate_proj", ffn, hidden, std_dev);
    projection("mlp.up_proj", ffn, hidden, std_dev);
    if (c.use_sub_norms) norm(prefix + "mlp.ffn_sub_norm.weight", ffn);
    projection("mlp.down_proj", hidden, ffn, out_std);
  }
  norm("model.norm.weight", hidden);
  if (!c.tie_word_embeddings)
    list.push_back({"lm_head.weight", {c.vocab_size, hidden}, TensorRole::head, std_dev});
  return list;
}

}  // namespace bitnet
