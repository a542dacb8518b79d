// SPDX-License-Identifier: MIT
// The shortest training loop: loss, gradients, clipping by global norm, AdamW, new codes. For tests
// of the model that must not depend on core/train.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/model/transformer.h"
#include "tests/support/tensors.h"

namespace bitnet::test {

// One batch: tokens and the tokens that follow them, both [B, T].
struct Batch {
  std::vector<std::int32_t> tokens, targets;
  std::int64_t size = 1;  // B
};

inline Batch random_batch(std::uint32_t seed, std::int64_t size, std::int64_t length,
                          std::int64_t vocabulary) {
  return {random_tokens(seed, size * length, vocabulary),
          random_tokens(seed + 1, size * length, vocabulary), size};
}

class TinyTrainer {
 public:
  TinyTrainer(Transformer& model, std::int64_t batch, std::int64_t length,
              Keep keep = Keep::everything, GradientPrecision precision = GradientPrecision::fp32)
      : model_(model),
        activations_(model.backend(), model.config(), batch, length, keep, true),
        precision_(precision) {
    model.parameters().create_gradients(model.backend());
    for (const Parameter& p : model.parameters().all()) {
      m_.push_back(model.backend().make_tensor(DType::f32, p.spec.shape));
      v_.push_back(model.backend().make_tensor(DType::f32, p.spec.shape));
    }
  }

  // Mean loss in nats; fills the gradients of the parameters.
  double gradients(const Batch& batch, const DropoutState* dropout = nullptr) {
    Backend& be = model_.backend();
    const std::int64_t rows = std::int64_t(batch.tokens.size());
    const Tensor tokens = to_device(be, {batch.size, rows / batch.size}, batch.tokens);
    const Tensor targets = to_device(be, {rows}, batch.targets);
    Tensor loss = be.make_tensor(DType::f32, {rows});
    model_.parameters().zero_gradients(be);
    TensorView logits = model_.forward(tokens, activations_, dropout);
    be.cross_entropy(logits, targets, loss, 1.0f / float(rows), logits);
    model_.backward(tokens, logits, activations_, dropout, precision_);
    return be.sum(loss) / double(rows);
  }

  // One AdamW update (β 0.9, 0.95; decay on matrices only) after clipping the gradient to norm 1;
  // returns the loss before it.
  double step(const Batch& batch, double learning_rate, double weight_decay) {
    Backend& be = model_.backend();
    const double loss = gradients(batch);
    double square = 0;
    for (const Parameter& p : model_.parameters().all()) square += be.sum_of_squares(p.gradient);
    AdamWStep update{.learning_rate = learning_rate,
                     .step = ++step_,
                     .grad_scale = std::min(1.0, 1.0 / (std::sqrt(square) + 1e-6))};
    std::size_t i = 0;
    for (Parameter& p : model_.parameters().all()) {
      update.weight_decay = p.spec.decays() ? weight_decay : 0;
      be.adamw(update, p.gradient, p.value, m_[i], v_[i]);
      ++i;
    }
    model_.refresh_quantized();
    return loss;
  }

 private:
  Transformer& model_;
  Activations activations_;
  GradientPrecision precision_;  // of integer products
  std::vector<Tensor> m_, v_;
  std::int64_t step_ = 0;
};

}  // namespace bitnet::test
