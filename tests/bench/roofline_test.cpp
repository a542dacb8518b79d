// SPDX-License-Identifier: MIT
#include "core/bench/roofline.h"

#include "core/bench/bench_configs.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

// 8 layers of q, k, v, o (256 x 256 each) and gate, up, down (256 x 768 each).
constexpr double kWeights = 8 * (4 * 256 * 256 + 3 * 256 * 768);

TEST_CASE("a token costs two int8 operations for each weight of the projections") {
  const ModelConfig config = bench_inference_config().model;
  CHECK(double(projection_weights(config)) == kWeights);
  CHECK(forward_operations(config).int8 == 2 * kWeights);
  CHECK(forward_operations(config).floats == 0);
}

TEST_CASE("the float twin computes the same in fp32") {
  ModelConfig config = bench_inference_config().model;
  config.linear = "float";
  CHECK(forward_operations(config).int8 == 0);
  CHECK(forward_operations(config).floats == 2 * kWeights);
  CHECK(training_operations(config, GradientPrecision::int8).floats == 6 * kWeights);
}

TEST_CASE("training takes three products, of which the backward option says the kind of two") {
  ModelConfig config = bench_inference_config().model;
  const Operations int8 = training_operations(config, GradientPrecision::int8);
  CHECK(int8.int8 == 6 * kWeights);
  CHECK(int8.floats == 0);
  const Operations fp32 = training_operations(config, GradientPrecision::fp32);
  CHECK(fp32.int8 == 2 * kWeights);
  CHECK(fp32.floats == 4 * kWeights);
  // With grouped scales the gradient of the input stays in fp32.
  config.weight_group_size = 64;
  const Operations grouped = training_operations(config, GradientPrecision::int8);
  CHECK(grouped.int8 == 4 * kWeights);
  CHECK(grouped.floats == 2 * kWeights);
}

TEST_CASE("what takes longer at the limits is what binds") {
  const MachineRates rates{.memory_read = 1, .l2_read = 1, .float_dot = 10, .int8_dot = 40};
  const Operations mixed{.int8 = 80, .floats = 10};
  CHECK(mixed.seconds(rates) == 3);
  CHECK(mixed.bound_by(rates) == "int8_dot");
  const Operations floats{.int8 = 40, .floats = 20};
  CHECK(floats.bound_by(rates) == "fp32_fma");
  MachineRates of_gpu = rates;
  of_gpu.float_name = "bf16_dot";
  CHECK(floats.bound_by(of_gpu) == "bf16_dot");
}

TEST_CASE("attention is two products over the causal half of the keys, and five more backward") {
  const ModelConfig config = bench_inference_config().model;
  // 3 tokens see 1, 2 and 3 keys: 2 on average. 4 heads of 64, 8 layers.
  CHECK(attention_operations(config, 3, false) == 8 * 2 * (2.0 * 2 * 256));
  CHECK(attention_operations(config, 3, true) == 8 * 7 * (2.0 * 2 * 256));
  CHECK(head_operations(config, false) == 2.0 * 512 * 256);
  CHECK(head_operations(config, true) == 6.0 * 512 * 256);
}

}  // namespace
}  // namespace bitnet
