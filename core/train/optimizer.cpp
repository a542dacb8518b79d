// SPDX-License-Identifier: MIT
#include "core/train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/train/schedule.h"

namespace bitnet {

Optimizer::Optimizer(Backend& backend, Parameters& parameters)
    : backend_(backend), parameters_(parameters) {
  parameters.create_gradients(backend);
  for (const Parameter& p : parameters.all()) {
    m_.push_back(backend.make_tensor(DType::f32, p.spec.shape));
    v_.push_back(backend.make_tensor(DType::f32, p.spec.shape));
    gradients_.push_back(p.gradient);
  }
  squares_.resize(gradients_.size());
}

Optimizer::GradientNorm Optimizer::gradient_norm() {
  backend_.sums_of_squares(gradients_, squares_);
  GradientNorm norm;
  double total = 0;
  for (std::size_t i = 0; i < squares_.size(); ++i) {
    if (!std::isfinite(squares_[i]) && norm.culprit == nullptr)
      norm.culprit = &parameters_.all()[i];
    total += squares_[i];
  }
  norm.value = std::sqrt(total);
  return norm;
}

void Optimizer::update(const TrainConfig& config, std::int64_t step, double gradient_norm) {
  AdamWStep adamw;
  adamw.learning_rate = learning_rate_at(config, step);
  adamw.beta1 = config.adam_beta1;
  adamw.beta2 = config.adam_beta2;
  adamw.eps = config.adam_epsilon;
  adamw.step = step + 1;
  adamw.grad_scale = clip_coefficient(config.max_grad_norm, gradient_norm);
  const double weight_decay = weight_decay_at(config, step);
  for (std::size_t i = 0; i < m_.size(); ++i) {
    Parameter& p = parameters_.all()[i];
    adamw.weight_decay = p.spec.decays() ? weight_decay : 0;
    backend_.adamw(adamw, p.gradient, p.value, m_[i], v_[i]);
  }
}

std::int64_t Optimizer::bytes() const {
  std::int64_t total = 0;
  for (const Parameter& p : parameters_.all()) total += p.gradient.bytes();
  for (const Tensor& tensor : m_) total += 2 * tensor.bytes();
  return total;
}

double clip_coefficient(double max_norm, double norm) {
  return max_norm == 0 ? 1.0 : std::min(1.0, max_norm / (norm + 1e-6));
}

}  // namespace bitnet
