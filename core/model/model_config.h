// SPDX-License-Identifier: MIT
// The shape and the numerics of a model. Keys are Hugging Face's where Hugging Face has one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend/backend.h"
#include "core/base/field_visitor.h"

namespace bitnet {

inline constexpr std::int64_t kByteValues = 256;  // token ids of the bytes; a model may have more

struct ModelConfig {
  // Names a set of defaults; see apply_profile(). Explicit keys win over it.
  std::string profile = "bitnet";

  std::int64_t vocab_size = 256;
  std::int64_t hidden_size = 256;
  std::int64_t intermediate_size = 768;
  std::int64_t num_hidden_layers = 4;
  std::int64_t num_attention_heads = 4;
  std::int64_t num_key_value_heads = 0;  // 0: num_attention_heads
  std::int64_t head_dim = 0;             // 0: hidden_size / num_attention_heads
  std::int64_t max_position_embeddings = 256;
  double rope_theta = 10000.0;
  double rms_norm_eps = 1e-5;  // of every norm, LayerNorm too
  double initializer_range = 0.02;
  double dropout = 0.0;  // after the embedding and on each block's two outputs
  bool tie_word_embeddings = true;

  std::string hidden_act = "silu";  // silu | relu2 | gelu
  bool gated_mlp = true;            // act(gate) * up, else act(up)
  std::string norm = "rmsnorm";     // rmsnorm | layernorm
  bool norm_gain = true;      // false: gain-free norms, the papers' norm inside each BitLinear
  bool use_sub_norms = true;  // norms before o_proj and down_proj

  std::string linear = "b158";           // b158 | b1 | float: all seven projections of a block
  std::string weight_scale = "absmean";  // absmean | absmedian
  std::int64_t weight_group_size = 0;    // 0: one scale a matrix
  std::int64_t activation_bits = 8;      // 8, or 0: activations are not quantised

  bool operator==(const ModelConfig&) const = default;

  void visit_fields(FieldVisitor& visitor);

  std::int64_t kv_heads() const {
    return num_key_value_heads > 0 ? num_key_value_heads : num_attention_heads;
  }
  std::int64_t head_size() const {
    return head_dim > 0 ? head_dim : hidden_size / num_attention_heads;
  }
  LinearKind linear_kind() const { return parse_linear_kind(linear); }
  bool quantized() const { return linear_kind() != LinearKind::float32; }
  bool quantized_activations() const { return quantized() && activation_bits == 8; }
  WeightQuantizer weight_quantizer() const;
  NormKind norm_kind() const { return norm == "layernorm" ? NormKind::layer : NormKind::rms; }
  Activation activation() const;

  // Throws UsageError saying which rule a shape breaks, with the values.
  void validate() const;
  // Throws UsageError unless ids 0 to count - 1 are the model's: count is 256 for bytes, else what
  // the tokenizer has. A model may have more, which are never written.
  void require_token_ids(std::int64_t count) const;
};

// Sets the fields that a profile stands for:
//   bitnet        SwiGLU, sub-norms, RMSNorm with gain, tied embeddings, b158
//   bitnet-relu2  the same with gated ReLU² (2B4T report)
//   bitnet-faq    SwiGLU; the training FAQ's placement: a gain-free RMSNorm inside each BitLinear
//   bitnet-b1     2310.11453: a gain-free LayerNorm inside each BitLinear, GELU, no gate, b1
//   llama         as bitnet, without sub-norms
// Throws UsageError for an unknown name.
void apply_profile(std::string_view profile, ModelConfig& config);
const std::vector<std::string>& profile_names();

// One parameter tensor of the model.
enum class TensorRole : std::uint8_t { embedding, norm_gain, projection, head };
struct TensorSpec {
  std::string name;  // Hugging Face's: "model.layers.0.self_attn.q_proj.weight"
  Shape shape;       // projection: [N, K]
  TensorRole role = TensorRole::projection;
  double init_std = 0;  // normal(0, init_std); norm gains start at 1
  bool decays() const { return role != TensorRole::norm_gain; }
};

// Every parameter of the model, in the order of the data: embedding, layers, final norm, head (when
// not tied). The single list that initialisation, optimizer, checkpoints and inspection walk.
std::vector<TensorSpec> list_tensors(const ModelConfig& config);

}  // namespace bitnet
