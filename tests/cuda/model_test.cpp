// SPDX-License-Identifier: MIT
// Models on the CUDA backend: recorded decoding, updates, and the two ways of attention beside each
// other. What every backend's models must do is tested by tests/model.
#include <cmath>

#include "core/train/trainer.h"
#include "core/train/update_step.h"
#include "cuda/cuda_backend.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/tiny_configs.h"
#include "tests/train/forwarding_backend.h"
#include "tests/train/tiny_run.h"

namespace bitnet {
namespace {

using Floats = std::vector<float>;

// The logits of each of `tokens`, given one by one from the same place, which lets a backend record.
// Half-way the head becomes an int8 one.
std::vector<Floats> decode(Backend& backend, const ModelConfig& config,
                           const std::vector<std::int32_t>& tokens, DType cache_dtype) {
  test::TinyModel model(backend, config, 1);
  const auto length = static_cast<std::int64_t>(tokens.size());
  Activations activations(backend, config, 1, length, Keep::nothing, true);
  KvCache cache(backend, config, length, cache_dtype);
  Tensor token = backend.make_tensor(DType::i32, {1, 1});
  std::vector<Floats> logits;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i == tokens.size() / 2) model.use_head(HeadPrecision::int8);
    backend.copy_from_host(&tokens[i], token);
    logits.push_back(test::floats_of(backend, model.extend(token, cache, activations)));
  }
  return logits;
}

TEST_CASE("decoding on the GPU by recorded operations gives the bits of decoding without") {
  const DType cache_dtype = GENERATE(DType::f32, DType::f16);
  const auto gpu = test::default_backend().make();
  test::ForwardingBackend unrecorded(*gpu);
  const auto tokens = test::random_tokens(1, 12, 32);
  for (const ModelConfig& config : test::tiny_configs()) {
    INFO(test::describe(config));
    CHECK((decode(*gpu, config, tokens, cache_dtype) ==
           decode(unrecorded, config, tokens, cache_dtype)));
  }
}

TEST_CASE("decoding on the GPU is near a forward pass over all tokens, whose attention is bf16") {
  const DType kv_cache = GENERATE(DType::f32, DType::f16);
  const auto gpu = test::default_backend().make();
  const std::int64_t length = 24;  // more than attention takes in fp32
  const auto tokens = test::random_tokens(2, length, 32);
  for (const ModelConfig& config : test::tiny_configs()) {
    INFO(test::describe(config));
    const auto one_by_one = decode(*gpu, config, tokens, kv_cache);
    test::TinyModel model(*gpu, config, 1);
    const auto whole = test::logits_of(model, tokens, 1, kv_cache);
    for (std::int64_t t = 0; t < length; ++t) {
      const auto first = whole.begin() + t * 32;
      // A few roundings to bf16 (2^-8), and codes that they move.
      CHECK(test::distance(one_by_one[std::size_t(t)], {first, first + 32}) <= 20 * 0x1p-8);
    }
  }
}

// --- updates ---

// All that an update needs.
struct Learner {
  Learner(Backend& backend, const RunConfig& run_config)
      : config(run_config),
        model(backend, config.model, WeightForm::latent),
        optimizer(backend, model.parameters()),
        loader(text, plan_batches(config)),
        step(config, model, optimizer, loader) {
    model.initialize(1);
  }
  const std::vector<std::uint8_t> text = test::tiny_text();
  const RunConfig config;
  Transformer model;
  Optimizer optimizer;
  BatchLoader loader;
  UpdateStep step;
};

TEST_CASE("one batch of 8 and two accumulated of 4 give the same gradients on the GPU") {
  const auto gpu = test::default_backend().make();
  RunConfig whole = test::tiny_run_config(GENERATE("b158", "float"));
  whole.train.backward = "bf16";  // int8 rounds gradients in stretches of the tokens of a batch
  whole.train.per_device_train_batch_size = 8;
  RunConfig halves = whole;
  halves.train.per_device_train_batch_size = 4;
  halves.train.gradient_accumulation_steps = 2;
  Learner a(*gpu, whole), b(*gpu, halves);
  CHECK(std::abs(a.step.accumulate_gradients(3) - b.step.accumulate_gradients(3)) <= 1e-14);
  for (std::size_t i = 0; i < a.model.parameters().all().size(); ++i) {
    INFO(a.model.parameters().all()[i].spec.name);
    const auto ga = test::floats_of(*gpu, a.model.parameters().all()[i].gradient),
               gb = test::floats_of(*gpu, b.model.parameters().all()[i].gradient);
    // Two orders of a sum over 128 rows, 2^-23 a step; 32: the terms are larger than their sum.
    CHECK(test::distance(gb, ga) <= 2 * 128 * 0x1p-23 * 32);
  }
}

// The parameters after 5 updates of two micro-batches, with an evaluation between them.
std::vector<Floats> trained(Backend& backend, const RunConfig& config) {
  Learner learner(backend, config);
  for (std::int64_t step = 0; step < 5; ++step) {
    learner.step.run(step);
    if (step != 2) continue;
    Activations activations(backend, config.model, 16, 16, Keep::nothing);  // of more rows
    learner.model.forward(test::to_device(backend, {16, 16}, test::random_tokens(1, 256, 256)),
                          activations);
  }
  std::vector<Floats> values;
  for (const Parameter& p : learner.model.parameters().all())
    values.push_back(test::floats_of(backend, p.value));
  return values;
}

TEST_CASE("updates from recorded passes have the bits of those that are issued anew", "[slow]") {
  const auto gpu = test::default_backend().make();
  test::RepeatingBackend repeating(*gpu, true), anew(*gpu, false);
  RunConfig config = test::tiny_run_config(GENERATE("b158", "float"));
  config.train.gradient_accumulation_steps = 2;
  // From the second step on; one first and one recorded, which may be made again for other scratch.
  int most_issued = 3, passes = 8;
  SECTION("the same passes from the first step on") {}
  SECTION("with gradient checkpointing") { config.train.gradient_checkpointing = true; }
  SECTION("after a quantisation warm-up of two steps") {
    config.train.quant_warmup_steps = 2;
    if (config.model.quantized()) passes = 4;
  }
  SECTION("with dropout, never") {
    config.model.dropout = 0.1;
    passes = 0;
  }
  CHECK(trained(repeating, config) == trained(anew, config));
  CHECK(repeating.issued <= most_issued);
  CHECK(anew.issued == passes);
}

TEST_CASE("an update on the GPU allocates no device memory after the first two", "[emulator]") {
  const auto gpu = test::default_backend().make();
  RunConfig config = test::tiny_run_config(GENERATE("b158", "b1", "float"));
  config.train.gradient_accumulation_steps = 2;
  config.model.dropout = 0.1;
  Learner learner(*gpu, config);
  learner.step.run(0);
  learner.step.run(1);
  const std::uint64_t before = emulator::statistics().allocations;
  learner.step.run(2);
  learner.step.run(3);
  CHECK(emulator::statistics().allocations == before);
}

}  // namespace
}  // namespace bitnet
