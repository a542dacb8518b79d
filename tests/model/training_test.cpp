// SPDX-License-Identifier: MIT
// Initialisation, and that the quantised kinds can learn: one batch by heart.
#include <algorithm>
#include <cmath>

#include "tests/support/backends.h"
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
  const auto one = test_backends().front().make(), two = test_backends().back().make();
  Transformer a(*one, tiny_config("b158"), WeightForm::latent),
      b(*two, tiny_config("float"), WeightForm::latent);
  a.initialize(5);
  b.initialize(6);
  CHECK(values_of(a) != values_of(b));
  b.initialize(5);
  CHECK(values_of(a) == values_of(b));
}

TEST_CASE("initial weights have the listed deviations, and gains are 1", "[model]") {
  const auto backend = default_backend().make();
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
  const TestBackend b = default_backend();
  const auto backend = b.make();
  for (const std::string& profile : profile_names()) {
    for (const char* linear : {"b158", "b1"}) {
      Transformer model(*backend, tiny_config(linear, profile), WeightForm::latent);
      model.initialize(1);
      // 64 tokens, so that even behind a ReLU no neuron is silent on all of them.
      TinyTrainer trainer(model, 4, 16, Keep::everything, b.gradients);
      trainer.gradients(random_batch(1, 4, 16, 32));
      for (const Parameter& p : model.parameters().all()) {
        if (!p.packed) continue;
        INFO(profile << " " << linear << " " << p.spec.name);
        const auto gradient = floats_of(*backend, p.gradient);
        const auto width = p.spec.shape[1];
        std::int64_t rows_with_gradient = 0;
        for (auto row = gradient.begin(); row != gradient.end(); row += width)
          rows_with_gradient += std::any_of(row, row + width, [](float g) { return g != 0; });
        CHECK(rows_with_gradient == p.spec.shape[0]);
      }
    }
  }
}

TEST_CASE("gradients add up over batches until they are zeroed", "[model]") {
  const auto backend = default_backend().make();
  TinyModel model(*backend, tiny_config("float"), 1);
  Activations activations(*backend, model.config(), 1, 8, Keep::everything);
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
  const TestBackend b = default_backend();
  const auto backend = b.make();
  const auto profile =
      GENERATE(std::string("bitnet"), std::string("bitnet-b1"), std::string("bitnet-relu2"));
  ModelConfig config = tiny_config("", profile);
  config.initializer_range = 0.02;
  config.vocab_size = 256;
  INFO(profile << " " << config.linear);
  Transformer model(*backend, config, WeightForm::latent);
  model.initialize(1);
  TinyTrainer trainer(model, 4, 16, Keep::everything, b.gradients);
  const Batch batch = random_batch(1, 4, 16, 256);
  double loss = trainer.step(batch, 2e-3, 0);
  CHECK(std::abs(loss - std::log(256.0)) <= 0.3);  // nothing is known at first
  for (int step = 1; step < 400 && loss > 0.05; ++step) loss = trainer.step(batch, 2e-3, 0);
  CHECK(loss <= 0.05);
}

TEST_CASE("gradient checkpointing keeps less and changes no gradient", "[model]") {
  const TestBackend b = default_backend();
  const auto backend = b.make();
  for (const char* linear : {"float", "b158", "b1"}) {
    INFO(linear);
    ModelConfig config = tiny_config(linear);
    config.dropout = 0.1;
    Transformer model(*backend, config, WeightForm::latent);
    model.initialize(1);
    const auto gradients_of = [&](Keep keep) {
      TinyTrainer trainer(model, 2, 16, keep, b.gradients);
      const DropoutState dropout{.seed = 3, .step = 4};
      trainer.gradients(random_batch(5, 2, 16, config.vocab_size), &dropout);
      std::vector<std::vector<float>> gradients;
      for (const Parameter& p : model.parameters().all())
        gradients.push_back(floats_of(*backend, p.gradient));
      return gradients;
    };
    CHECK(gradients_of(Keep::block_inputs) == gradients_of(Keep::everything));
    const auto bytes = [&](Keep keep) {
      return Activations(*backend, config, 2, 16, keep).bytes();
    };
    CHECK(bytes(Keep::block_inputs) < bytes(Keep::everything));
    CHECK(config.num_hidden_layers > 1);
  }
}
