// SPDX-License-Identifier: MIT
// The decoder-only causal transformer: embedding, blocks, final norm, head; forward and backward.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/model/activations.h"
#include "core/model/block.h"
#include "core/model/kv_cache.h"
#include "core/model/model_config.h"
#include "core/model/parameters.h"

namespace bitnet {

// In what the output head is computed. int8 rounds both of its operands, each row of the weights
// and each token by quantize_token(): a quarter of the bytes that decoding reads, for inference.
enum class HeadPrecision : std::uint8_t { fp32, int8 };

class Transformer {
 public:
  // All parameters come from `source`; without one they are zero (gains too) until initialize() or
  // a checkpoint fills them. `form` says whether projections hold fp32 latent weights (training,
  // float models) or only packed codes and scales (inference).
  Transformer(Backend& backend, const ModelConfig& config, WeightForm form,
              const TensorSource& source = {});
  Transformer(const Transformer&) = delete;  // layers point into parameters_
  Transformer& operator=(const Transformer&) = delete;

  const ModelConfig& config() const { return config_; }
  Backend& backend() const { return backend_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  // Normal initial weights from (seed, index of the tensor, index of the element); gains 1.
  void initialize(std::uint64_t seed);

  // Makes codes and scales from the latent weights; to be called after every change of them. Float
  // models need no call. Packed models need one when their activations are not quantised: it makes
  // the float operands. amount: the quantisation warm-up's λ in [0, 1]; operands are x + λ (q(x) -
  // x). 1 is full quantisation.
  void refresh_quantized(double amount = 1.0);

  // From now on; at first it is fp32. int8 codes, and the floats of a bf16 head, are made from the
  // head as it is now: later changes of it need another call.
  void use_head(HeadPrecision precision);
  HeadPrecision head_precision() const {
    return head_codes_ ? HeadPrecision::int8 : HeadPrecision::fp32;
  }

  // Changes with everything that the operations of forward() and backward() depend on, other than
  // their arguments and the contents of tensors: for Backend::repeat().
  std::uint64_t number() const { return number_; }

  // Logits [B * T, V] of B sequences from position 0. tokens: i32 [B, T] on the device. `dropout`
  // is null for evaluation. The view lives in `activations` until its next use.
  TensorView forward(ConstTensorView tokens, Activations& activations,
                     const DropoutState* dropout = nullptr);
  // dlogits [B * T, V]; adds to the gradients of the parameters (created on first use).
  // `activations` must be those of the last forward(), made to keep something, by an fp32
  // head. `precision` is that of the products of quantised projections.
  void backward(ConstTensorView tokens, ConstTensorView dlogits, Activations& activations,
                const DropoutState* dropout = nullptr,
                GradientPrecision precision = GradientPrecision::int8);

  // One sequence, continued: appends `tokens` (i32 [1, T]) to the cache and returns the logits [1,
  // V] of the last one.
  TensorView extend(ConstTensorView tokens, KvCache& cache, Activations& activations);

 private:
  Pass make_pass(ConstTensorView tokens, Activations& activations, KvCache* cache,
                 const DropoutState* dropout) const;
  TensorView run_blocks(Pass& pass, ConstTensorView tokens);  // [rows, D]
  TensorView head_forward(Activations& activations, ConstTensorView x,
                          std::int64_t rows);  // logits [rows, V]
  // The head as the fp32 product takes it: one of bf16 is widened at the first call.
  ConstTensorView float_head();
  ConstTensorView final_gain() const {
    return final_gain_ == nullptr ? ConstTensorView() : final_gain_->value;
  }

  Backend& backend_;
  ModelConfig config_;
  Parameters parameters_;
  std::vector<Block> blocks_;
  Parameter* final_gain_ = nullptr;  // null: a gain-free norm
  Parameter* embedding_ = nullptr;
  Parameter* head_ = nullptr;             // the embedding, when tied
  Tensor head_floats_;                    // f32 [V, D]: of a bf16 head
  Tensor head_codes_, head_scale_;        // i8 [V, D], [V]: of an int8 head
  Tensor head_in_codes_, head_in_scale_;  // i8 [rows, D], [rows]: its input
  Tensor rope_table_;                     // [max_position_embeddings, E]
  ProductMode mode_ = ProductMode::float32;
  float quantized_amount_ = 1;
  std::vector<WeightQuantization> quantizations_;  // of refresh_quantized()
  std::uint64_t number_ = unique_number();
};

}  // namespace bitnet
