// SPDX-License-Identifier: MIT
#include "core/eval/logit_comparison.h"

#include <cmath>
#include <limits>

#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"

using namespace bitnet;

namespace {

ModelConfig tiny_config() {
  ModelConfig config;
  config.hidden_size = 64;
  config.intermediate_size = 64;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 2;
  config.max_position_embeddings = 24;
  return config;
}

}  // namespace

TEST_CASE("a model equals itself bit for bit, with any number of threads") {
  const auto one = make_cpu_backend(1), two = make_cpu_backend(2);
  Transformer a(*one, tiny_config(), WeightForm::latent),
      b(*two, tiny_config(), WeightForm::latent);
  a.initialize(1);
  b.initialize(1);
  const LogitComparison result = compare_logits(a, b);
  CHECK(result.different == 0);
  CHECK(result.largest_difference == 0);
  CHECK(result.compared ==
        (2 * 24 + 17) * 256);  // two whole sequences, the prompt's last token, 16 decoded ones
}

TEST_CASE("a comparison finds a weight that changed, and by how much") {
  const auto backend = make_cpu_backend(1);
  Transformer a(*backend, tiny_config(), WeightForm::latent),
      b(*backend, tiny_config(), WeightForm::latent);
  a.initialize(1);
  b.initialize(1);
  auto gain = b.parameters().at("model.norm.weight").value.as<float>();
  gain[0] *= 1.5f;
  const LogitComparison changed = compare_logits(a, b);
  CHECK(changed.different > 0);
  CHECK(changed.largest_difference > 0);
  CHECK(std::isfinite(changed.largest_difference));

  gain[0] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isinf(compare_logits(a, b).largest_difference));
}

TEST_CASE("models of different shapes are not compared") {
  const auto backend = make_cpu_backend(1);
  ModelConfig longer = tiny_config();
  longer.max_position_embeddings = 25;
  Transformer a(*backend, tiny_config(), WeightForm::latent),
      b(*backend, longer, WeightForm::latent);
  CHECK_THROWS_AS(compare_logits(a, b), ContractError);
}
