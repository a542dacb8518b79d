// SPDX-License-Identifier: MIT
// What must not change a single bit of a model on the CPU: the number of threads, the instruction set.
#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"
#include "tests/support/tiny_configs.h"
#include "tests/support/tiny_trainer.h"

using namespace bitnet;
using namespace bitnet::test;

namespace {

constexpr std::int64_t kLength = 24;

}  // namespace

TEST_CASE("logits and gradients are the same bits with one thread and with two", "[model]") {
  for (const ModelConfig& config : tiny_configs()) {
    INFO(describe(config));
    std::vector<std::vector<float>> logits, gradients[2];
    for (const int threads : {1, 2}) {
      const auto backend = make_cpu_backend(threads);
      TinyModel model(*backend, config, 1);
      const Batch batch = random_batch(1, 2, kLength, 32);
      logits.push_back(logits_of(model, batch.tokens, 2));
      TinyTrainer trainer(model, 2, kLength);
      trainer.gradients(batch);
      for (const Parameter& p : model.parameters().all())
        gradients[threads - 1].push_back(floats_of(*backend, p.gradient));
    }
    CHECK(logits[0] == logits[1]);
    CHECK((gradients[0] == gradients[1]));
  }
}

TEST_CASE("logits are the same bits on every ISA", "[model]") {
  for (const ModelConfig& config : tiny_configs()) {
    INFO(describe(config));
    std::vector<std::vector<float>> logits;
    for (const std::string& isa : available_cpu_isas()) {
      const auto backend = make_cpu_backend(1, isa);
      TinyModel model(*backend, config, 1);
      logits.push_back(logits_of(model, random_tokens(1, 2 * kLength, 32), 2));
      INFO(isa);
      CHECK((logits.back() == logits.front()));
    }
  }
}
