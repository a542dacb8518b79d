// SPDX-License-Identifier: MIT
// Initialisation, and that the quantised kinds can learn: one batch by heart.
#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_trainer.h"

using namespace bitnet;
using namespace bitnet::test;

namespace {

std::vector<std::vector<float>> values_of(Transformer& model) {
  std::vector<std::vector<float>> values;
  for (const Parameter& p : model.parameters().all())
    values.push_back(floats_of(model.backend(), p.value));
  return values;
}

}  // namespace

TEST_CASE("initial weights depend on the seed alone", "[model]") {
  const auto one = make_cpu_backend(1), two = make_cpu_backend(2, "scalar");
  Transformer a(*one, tiny_config("b158"), WeightForm::latent),
      b(*two, tiny_config("float"), WeightForm::latent);
  a.initialize(5);
  b.initialize(6);
  CHECK(values_of(a) != values_of(b));
  b.initialize(5);
  CHECK(values_of(a) == values_of(b));
}

TEST_CASE("initial weights have the listed deviations, and gains are 1", "[model]") {
  const auto backend = make_cpu_backend(1);
  Transformer model(*backend, tiny_config("b158"), WeightForm::latent);
  model.initialize(1);
  for (const Parameter& p : model.parameters().all()) {
    INFO(p.spec.name);
    const auto values = doubles_of(*backend, p.value);
    if (p.spec.role == TensorRole::norm_gain) {
      CHECK(values == std::vector<double>(values.size(), 1.0));
      continue;
    }
    double sum = 0, square = 0;
    for (const double w : values) sum += w, square += w * w;
    const double count = double(values.size());
    // Five standard errors of the sample mean and of the sample deviation.
    CHECK(std::abs(sum / count) <= 5 * p.spec.init_std / std::sqrt(count));
    CHECK(std::abs(std::sqrt(square / count) / p.spec.init_std - 1) <= 5 / std::sqrt(2 * count));
  }
}

TEST_CASE("every quantised matrix receives a gradient", "[model]") {
  const auto backend = make_cpu_backend(1);
  for (const std::string& profile : profile_names()) {
    for (const char* linear : {"b158", "b1"}) {
      Transformer model(*backend, tiny_config(linear, profile), WeightForm::latent);
      model.initialize(1);
      // 64 tokens, so that even behind a ReLU no neuron is silent on all of them.
      TinyTrainer trainer(model, 4, 16);
      trainer.gradients(random_batch(1, 4, 16, 32));
      for (const Parameter& p : model.parameters().all()) {
        if (!p.packed) continue;
        INFO(profile << " " << linear << " " << p.spec.name);
        std::int64_t rows_with_gradient = 0;
        for (std::int64_t row = 0; row < p.spec.shape[0]; ++row)
          rows_with_gradient += backend->sum_of_squares(p.gradient.view().rows(row, 1)) > 0;
        CHECK(rows_with_gradient == p.spec.shape[0]);
      }
    }
  }
}

TEST_CASE("gradients add up over batches until they are zeroed", "[model]") {
  const auto backend = make_cpu_backend(1);
  TinyModel model(*backend, tiny_config("float"), 1);
  Activations activations(*backend, model.config(), 1, 8, true);
  const Tensor tokens = to_device(*backend, {1, 8}, random_tokens(1, 8, 32));
  const Tensor dlogits = to_device(*backend, {8, 32}, random_numbers(2, 8 * 32));
  std::vector<std::vector<double>> once;
  for (const double times : {1.0, 2.0}) {
    model.forward(tokens, activations);
    model.backward(tokens, dlogits, activations);
    std::size_t i = 0;
    for (const Parameter& p : model.parameters().all()) {
      INFO(p.spec.name);
      const auto gradient = doubles_of(*backend, p.gradient);
      if (times == 1) {
        once.push_back(gradient);
      } else {
        double error = 0, size = 0;
        for (std::size_t e = 0; e < gradient.size(); ++e) {
          error = std::max(error, std::abs(gradient[e] - 2 * once[i][e]));
          size = std::max(size, std::abs(gradient[e]));
        }
        CHECK(error <= 1e-5 * size);  // the additions continue a sum that began elsewhere
      }
      ++i;
    }
  }
}

TEST_CASE("one batch is learnt by heart to under 0.05 nats", "[model][slow]") {
  const auto backend = make_cpu_backend();
  const auto profile =
      GENERATE(std::string("bitnet"), std::string("bitnet-b1"), std::string("bitnet-relu2"));
  ModelConfig config = tiny_config("", profile);
  config.initializer_range = 0.02;
  config.vocab_size = 256;
  INFO(profile << " " << config.linear);
  Transformer model(*backend, config, WeightForm::latent);
  model.initialize(1);
  TinyTrainer trainer(model, 4, 16);
  const Batch batch = random_batch(1, 4, 16, 256);
  double loss = trainer.step(batch, 2e-3, 0);
  CHECK(std::abs(loss - std::log(256.0)) <= 0.3);  // nothing is known at first
  for (int step = 1; step < 400 && loss > 0.05; ++step) loss = trainer.step(batch, 2e-3, 0);
  CHECK(loss <= 0.05);
}
