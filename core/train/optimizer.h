// SPDX-License-Identifier: MIT
// AdamW over the model's parameters: moments, the global gradient norm, clipping. Only matrices
// decay.
#pragma once

#include <span>
#include <vector>

#include "core/backend/backend.h"
#include "core/model/parameters.h"
#include "core/train/train_config.h"

namespace bitnet {

class Optimizer {
 public:
  // Creates the gradients and two zero moments of every parameter. `parameters` must outlive it.
  Optimizer(Backend& backend, Parameters& parameters);

  // Like parameters.all(): first and second moments.
  std::span<Tensor> first_moments() { return m_; }
  std::span<Tensor> second_moments() { return v_; }

  // sqrt of the sum of squares of all gradients, summed in the order of the parameters. When a
  // gradient is not finite neither is the norm, and `culprit` is the first such parameter.
  struct GradientNorm {
    double value = 0;
    const Parameter* culprit = nullptr;
  };
  // And sums[i] = the sum of x[i], so that a single wait for the device is enough.
  GradientNorm gradient_norm(std::span<const ConstTensorView> x = {}, std::span<double> sums = {});

  // Update number `step` (from 0) of the weights; the gradient is scaled by min(1, max_norm / (norm
  // + 1e-6)) first.
  void update(const TrainConfig& config, std::int64_t step, double gradient_norm);

  std::int64_t bytes() const;  // of gradients and moments

 private:
  Backend& backend_;
  Parameters& parameters_;
  std::vector<Tensor> m_, v_;
  std::vector<ConstTensorView> gradients_;  // of parameters_
  std::vector<AdamWParameter> updates_;     // of update()
  std::vector<double> sums_;                // of gradient_norm()
};

// The factor that brings a gradient of this norm to at most max_norm; 1 when max_norm is 0. As
// PyTorch's clip_grad_norm_.
double clip_coefficient(double max_norm, double norm);

}  // namespace bitnet
