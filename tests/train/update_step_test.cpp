// SPDX-License-Identifier: MIT
#include "core/train/update_step.h"

#include <cmath>
#include <limits>

#include "core/cpu/cpu_backend.h"
#include "core/train/trainer.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"
#include "tests/train/allocation_counter.h"
#include "tests/train/forwarding_backend.h"
#include "tests/train/tiny_run.h"

namespace bitnet {
namespace {

// All that an update needs, over `backend`.
struct Learner {
  Learner(Backend& backend, const RunConfig& run_config)
      : config(run_config),
        model(backend, config.model, WeightForm::latent),
        optimizer(backend, model.parameters()),
        loader(text, plan_batches(config)),
        step(config, model, optimizer, loader) {
    model.initialize(1);
  }
  std::vector<std::vector<float>> values() {
    std::vector<std::vector<float>> all;
    for (const Parameter& p : model.parameters().all())
      all.push_back(test::floats_of(model.backend(), p.value));
    for (const Tensor& m : optimizer.first_moments())
      all.push_back(test::floats_of(model.backend(), m));
    return all;
  }

  const std::vector<std::uint8_t> text = test::tiny_text();
  const RunConfig config;
  Transformer model;
  Optimizer optimizer;
  BatchLoader loader;
  UpdateStep step;
};

TEST_CASE("one batch of 8 and two accumulated batches of 4 give the same gradients") {
  const auto backend = make_cpu_backend(1);
  RunConfig whole = test::tiny_run_config(GENERATE("b158", "float"));
  whole.train.backward = "fp32";  // int8 rounds gradients in stretches of the tokens of a batch
  whole.train.per_device_train_batch_size = 8;
  RunConfig halves = whole;
  halves.train.per_device_train_batch_size = 4;
  halves.train.gradient_accumulation_steps = 2;
  Learner a(*backend, whole), b(*backend, halves);

  // The same rows, whose losses are added in double.
  CHECK(std::abs(a.step.accumulate_gradients(3) - b.step.accumulate_gradients(3)) <= 1e-14);
  // A gradient is a sum over 128 rows in fp32, here in another order: each of the two sums is off
  // by at most 128 ε times the sum of the terms' sizes (ε = 2^-24), which cancellation makes larger
  // than the result; 32 times is ample for these.
  const double tolerance = 2 * 128 * 0x1p-24 * 32;
  for (std::size_t i = 0; i < a.model.parameters().all().size(); ++i) {
    const auto ga = test::doubles_of(*backend, a.model.parameters().all()[i].gradient),
               gb = test::doubles_of(*backend, b.model.parameters().all()[i].gradient);
    double difference = 0, size = 0;
    for (std::size_t j = 0; j < ga.size(); ++j) {
      difference += (ga[j] - gb[j]) * (ga[j] - gb[j]);
      size += ga[j] * ga[j];
    }
    INFO(a.model.parameters().all()[i].spec.name);
    CHECK(size > 0);
    CHECK(std::sqrt(difference) <= tolerance * std::sqrt(size));
  }
}

TEST_CASE("an update allocates nothing after the first") {
  const auto cpu = make_cpu_backend(2);
  test::CountingBackend backend(*cpu);
  RunConfig config = test::tiny_run_config(GENERATE("b158", "b1", "float"));
  config.train.gradient_accumulation_steps = 2;
  config.train.per_device_train_batch_size = 40;  // 640 rows: several tasks of every operation
  config.model.dropout = 0.1;
  Learner learner(backend, config);
  learner.step.run(0);
  const std::int64_t on_device = backend.allocations, on_heap = test::heap_allocations();
  learner.step.run(1);
  learner.step.run(2);
  CHECK(backend.allocations == on_device);
  CHECK(test::heap_allocations() == on_heap);
}

TEST_CASE("a loss that is not finite stops the update before any weight changes") {
  const auto backend = make_cpu_backend(1);
  Learner learner(*backend, test::tiny_run_config());
  Parameter& gain = learner.model.parameters().at("model.norm.weight");
  const float poison = std::numeric_limits<float>::quiet_NaN();
  backend->copy_from_host(&poison, gain.value.view().rows(0, 1));
  const auto gain_before = test::floats_of(*backend, learner.model.parameters().all()[0].value);
  std::string message;
  try {
    learner.step.run(4);
  } catch (const NonFiniteError& e) {
    message = e.what();
  }
  INFO(message);
  CHECK(message.find("step 5: the loss is") != std::string::npos);
  CHECK(message.find("model.norm.weight") != std::string::npos);
  CHECK(test::floats_of(*backend, learner.model.parameters().all()[0].value) == gain_before);
  CHECK_THROWS_AS(learner.step.check_weights(4), NonFiniteError);
}

TEST_CASE("a gradient that is not finite stops the update before any weight changes") {
  const auto cpu = make_cpu_backend(1);
  const float poison =
      GENERATE(std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN());
  test::PoisonedGradientBackend backend(*cpu, poison, 2);
  Learner learner(backend, test::tiny_run_config());
  learner.step.run(0);
  const auto before = learner.values();
  std::string message;
  try {
    learner.step.run(1);
  } catch (const NonFiniteError& e) {
    message = e.what();
  }
  INFO(message);
  CHECK(message.find("step 2: the gradient of model.embed_tokens.weight") != std::string::npos);
  CHECK(learner.values() == before);
}

}  // namespace
}  // namespace bitnet
