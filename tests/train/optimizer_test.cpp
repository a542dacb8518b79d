// SPDX-License-Identifier: MIT
#include "core/train/optimizer.h"

#include <cmath>
#include <limits>

#include "core/cpu/cpu_backend.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"
#include "tests/train/tiny_run.h"

namespace bitnet {
namespace {

void fill(Backend& backend, TensorView x, float value) {
  const std::vector<float> values(static_cast<std::size_t>(x.elements()), value);
  backend.copy_from_host(values.data(), x);
}

TEST_CASE("clipping brings a long gradient to the bound and leaves a short one alone") {
  CHECK(clip_coefficient(1.0, 0.5) == 1.0);
  CHECK(std::abs(clip_coefficient(1.0, 4.0) * 4.0 - 1.0) <= 1e-6);
  CHECK(clip_coefficient(0.0, 1e9) == 1.0);
  CHECK(clip_coefficient(1.0, 0.0) == 1.0);
}

TEST_CASE("the gradient norm is over all parameters") {
  const auto backend = make_cpu_backend(1);
  Transformer model(*backend, test::tiny_run_config().model, WeightForm::latent);
  Optimizer optimizer(*backend, model.parameters());
  CHECK(optimizer.gradient_norm().value == 0.0);
  for (Parameter& p : model.parameters().all()) fill(*backend, p.gradient, 0.5f);
  // 0.25 is a power of two: every partial sum is exact.
  CHECK(optimizer.gradient_norm().value ==
        std::sqrt(0.25 * static_cast<double>(model.parameters().count())));
}

TEST_CASE("the first parameter whose gradient is not finite is named") {
  const auto backend = make_cpu_backend(1);
  Transformer model(*backend, test::tiny_run_config().model, WeightForm::latent);
  Optimizer optimizer(*backend, model.parameters());
  const float poison =
      GENERATE(std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN());
  fill(*backend, model.parameters().all()[5].gradient, poison);
  fill(*backend, model.parameters().all()[3].gradient, poison);
  const Optimizer::GradientNorm norm = optimizer.gradient_norm();
  CHECK(norm.culprit == &model.parameters().all()[3]);
  CHECK_FALSE(std::isfinite(norm.value));
}

TEST_CASE("weight decay shrinks matrices and leaves norm gains alone") {
  const auto backend = make_cpu_backend(1);
  TrainConfig config = test::tiny_run_config().train;
  config.warmup_steps = 0;
  config.learning_rate = 0.5;
  config.weight_decay = 0.5;
  Transformer model(*backend, test::tiny_run_config().model, WeightForm::latent);
  Optimizer optimizer(*backend, model.parameters());
  for (Parameter& p : model.parameters().all()) fill(*backend, p.value, 1.0f);
  optimizer.update(config, 0, 0.0);  // all gradients are zero
  for (const Parameter& p : model.parameters().all()) {
    const float expected = p.spec.role == TensorRole::norm_gain ? 1.0f : 0.75f;
    CHECK(test::floats_of(*backend, p.value) ==
          std::vector<float>(static_cast<std::size_t>(p.value.elements()), expected));
  }
}

}  // namespace
}  // namespace bitnet
