// SPDX-License-Identifier: MIT
#include "core/bench/synthetic_model.h"

#include <algorithm>
#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

ModelConfig small_config(const std::string& linear) {
  ModelConfig config;
  config.hidden_size = 128;
  config.intermediate_size = 192;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.max_position_embeddings = 16;
  config.linear = linear;
  return config;
}

std::vector<float> logits_of(const ModelConfig& config, int threads) {
  const auto backend = make_cpu_backend(threads);
  const auto model = make_synthetic_model(*backend, config, ThreadTeam(threads));
  Activations activations(*backend, config, 1, 8, Keep::nothing);
  const Tensor tokens =
      test::to_device(*backend, {1, 8}, test::random_tokens(1, 8, config.vocab_size));
  return test::floats_of(*backend, model->forward(tokens, activations));
}

TEST_CASE("synthetic ternary codes are all valid, half of them zero") {
  const auto backend = make_cpu_backend(1);
  const auto model = make_synthetic_model(*backend, small_config("b158"), ThreadTeam(1));
  for (const Parameter& p : model->parameters().all()) {
    if (p.spec.role != TensorRole::projection) continue;
    CHECK_FALSE(p.value);
    const CodeCounts codes = backend->count_codes(p.packed);
    CHECK(codes.invalid == 0);
    // n >= 16384 codes: 0.05 is more than 12 times the deviation of a share, 0.5 / sqrt(n).
    const auto share = [&](std::int64_t count) { return double(count) / double(codes.total()); };
    CHECK(std::abs(share(codes.zero) - 0.5) <= 0.05);
    CHECK(std::abs(share(codes.plus) - 0.25) <= 0.05);
  }
}

TEST_CASE("synthetic binary codes are +1 or -1") {
  const auto backend = make_cpu_backend(1);
  const auto model = make_synthetic_model(*backend, small_config("b1"), ThreadTeam(1));
  for (const Parameter& p : model->parameters().all()) {
    if (p.spec.role != TensorRole::projection) continue;
    const CodeCounts codes = backend->count_codes(p.packed);
    CHECK(codes.zero + codes.invalid == 0);
    CHECK(codes.minus > 0);
  }
}

TEST_CASE("a synthetic model is the same for any number of threads and gives ordinary logits") {
  const std::string linear = GENERATE("b158", "float");
  const std::vector<float> logits = logits_of(small_config(linear), 1);
  CHECK(logits == logits_of(small_config(linear), 2));
  CHECK(std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }));
  CHECK(*std::max_element(logits.begin(), logits.end()) > 0);
}

}  // namespace
}  // namespace bitnet
