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
}

Optimizer::GradientNorm Optimizer::gradient_norm(std::span<const ConstTensorView> x,
                                                 std::span<double> sums) {
  sums_.resize(x.size() + gradients_.size());
  backend_.sums(x, gradients_, sums_);
  const auto squares = std::span(sums_).subspan(x.size());
  std::copy_n(sums_.begin(), x.size(), sums.begin());
  GradientNorm norm;
  double total = 0;
  for (std::size_t i = 0; i < squares.size(); ++i) {
    if (!std::isfinite(squares[i]) && norm.culprit == nullptr) norm.culprit = &parameters_.all()[i];
    total += squares[i];
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
  adamw.weight_decay = weight_decay_at(config, step);
  updates_.clear();
  for (std::size_t i = 0; i < m_.size(); ++i) {
    Parameter& p = parameters_.all()[i];
    updates_.push_back({p.gradient, p.value, m_[i], v_[i], p.spec.decays()});
  }
  backend_.adamw(adamw, updates_);
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
