// SPDX-License-Identifier: MIT
// The whole transformer as plain loops over any number type, from the papers: embedding, blocks,
// final norm, head, mean loss. With T = Complex and an imaginary part of kComplexStep on some
// weights, the imaginary part of the loss is a derivative; for the quantised kinds it is that of
// the straight-through estimator (see quantizers.h).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/model/model_config.h"
#include "tests/reference/ops.h"
#include "tests/reference/quantizers.h"

namespace bitnet::reference {

template <typename T>
class ReferenceModel {
 public:
  using Tensors = std::map<std::string, std::vector<T>>;

  explicit ReferenceModel(const ModelConfig& config) : config_(config) {}

  Tensors tensors;                // by Hugging Face's names; absent gains are gain-free norms
  double quantized_amount = 1.0;  // λ of the quantisation warm-up
  // Called with (site, values [B * T, D]) after the embedding (site 0) and on the outputs of
  // attention (2 l + 1) and feed-forward (2 l + 2) of block l; empty: no dropout.
  std::function<void(std::int64_t, std::vector<T>&)> dropout;
  TieDistance ties;  // of the last pass

  // tokens [B, T] -> logits [B * T, V].
  std::vector<T> logits(const std::vector<std::int32_t>& tokens, std::int64_t batch) {
    ties = {};
    batch_ = batch;
    rows_ = std::int64_t(tokens.size());
    const std::int64_t width = config_.hidden_size;
    const auto& table = tensors.at("model.embed_tokens.weight");
    std::vector<T> x;
    for (const std::int32_t token : tokens)
      x.insert(x.end(), table.begin() + token * width, table.begin() + (token + 1) * width);
    drop(0, x);
    for (std::int64_t l = 0; l < config_.num_hidden_layers; ++l) block(l, x);
    const auto normed = norm_of("model.norm", x, width);
    const auto& head = config_.tie_word_embeddings ? table : tensors.at("lm_head.weight");
    return linear(normed, head, rows_, config_.vocab_size, width);
  }

  // Mean over the rows in nats.
  T loss(const std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& targets,
         std::int64_t batch) {
    T sum(0);
    for (const T& row : cross_entropy(logits(tokens, batch), targets, config_.vocab_size))
      sum += row;
    return sum / double(targets.size());
  }

 private:
  // x += Attention(norm x);  x += FeedForward(norm x), with sub-norms before the output projections
  // where configured.
  void block(std::int64_t l, std::vector<T>& x) {
    const std::string name = "model.layers." + std::to_string(l) + ".";
    auto branch = attention_branch(name, norm_of(name + "input_layernorm", x, config_.hidden_size));
    drop(2 * l + 1, branch);
    add(x, branch);
    branch = feed_forward_branch(
        name, norm_of(name + "post_attention_layernorm", x, config_.hidden_size));
    drop(2 * l + 2, branch);
    add(x, branch);
  }

  std::vector<T> attention_branch(const std::string& name, const std::vector<T>& x) {
    const std::string self = name + "self_attn.";
    const std::int64_t heads = config_.num_attention_heads, kv_heads = config_.kv_heads(),
                       e = config_.head_size();
    const std::int64_t tokens = rows_ / batch_, d = config_.hidden_size;
    const auto in = operand(x, d);
    auto q = project(self + "q_proj", in, heads * e, d),
         k = project(self + "k_proj", in, kv_heads * e, d);
    const auto v = project(self + "v_proj", in, kv_heads * e, d);
    q = rope(q, batch_, tokens, heads, e, config_.rope_theta, 0, RopeDirection::forward);
    k = rope(k, batch_, tokens, kv_heads, e, config_.rope_theta, 0, RopeDirection::forward);
    const AttentionShape shape{.batch = batch_,
                               .queries = tokens,
                               .keys = tokens,
                               .heads = heads,
                               .kv_heads = kv_heads,
                               .head_dim = e};
    auto out = attention(shape, q, k, v);
    if (config_.use_sub_norms) out = norm_of(self + "attn_sub_norm", out, heads * e);
    return project(self + "o_proj", operand(out, heads * e), d, heads * e);
  }

  std::vector<T> feed_forward_branch(const std::string& name, const std::vector<T>& x) {
    const std::string mlp = name + "mlp.";
    const std::int64_t d = config_.hidden_size, f = config_.intermediate_size;
    const auto in = operand(x, d);
    const auto up = project(mlp + "up_proj", in, f, d);
    auto hidden = config_.gated_mlp ? gated_activation(config_.activation(),
                                                       project(mlp + "gate_proj", in, f, d), up)
                                    : gated_activation(config_.activation(), up, {});
    if (config_.use_sub_norms) hidden = norm_of(mlp + "ffn_sub_norm", hidden, f);
    return project(mlp + "down_proj", operand(hidden, f), d, f);
  }

  std::vector<T> norm_of(const std::string& name, const std::vector<T>& x, std::int64_t width) {
    const auto gain = tensors.find(name + ".weight");
    return norm(config_.norm_kind(), x, gain == tensors.end() ? std::vector<T>{} : gain->second,
                config_.rms_norm_eps, rows_, width);
  }

  // x + λ (q(x) - x), what a projection reads instead of x.
  std::vector<T> operand(const std::vector<T>& x, std::int64_t width) {
    return config_.quantized_activations() ? mix(x, quantize_activations(x, width, ties)) : x;
  }

  std::vector<T> project(const std::string& name, const std::vector<T>& x, std::int64_t outputs,
                         std::int64_t inputs) {
    const auto& w = tensors.at(name + ".weight");
    if (!config_.quantized()) return linear(x, w, rows_, outputs, inputs);
    return linear(x, mix(w, quantize_weights(config_.weight_quantizer(), w)), rows_, outputs,
                  inputs);
  }

  std::vector<T> mix(const std::vector<T>& x, std::vector<T> quantized) const {
    if (quantized_amount < 1.0)
      for (std::size_t i = 0; i < x.size(); ++i)
        quantized[i] = x[i] + quantized_amount * (quantized[i] - x[i]);
    return quantized;
  }

  void drop(std::int64_t site, std::vector<T>& x) const {
    if (dropout) dropout(site, x);
  }
  static void add(std::vector<T>& x, const std::vector<T>& y) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  ModelConfig config_;
  std::int64_t batch_ = 1, rows_ = 0;
};

}  // namespace bitnet::reference
