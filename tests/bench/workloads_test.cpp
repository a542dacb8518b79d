// SPDX-License-Identifier: MIT
#include "core/bench/workloads.h"

#include "core/base/machine.h"
#include "core/bench/bench_configs.h"
#include "core/bench/load.h"
#include "core/bench/synthetic_model.h"
#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

namespace bitnet {
namespace {

constexpr BenchEffort kShort{.repeats = 2, .seconds = 1e-3};
// So large that nothing else can be the limit.
constexpr MachineRates kRates{
    .memory_read = 1e18, .l2_read = 1e18, .float_dot = 1e18, .int8_dot = 1e18, .l2_bytes = 1 << 30};

RunConfig small_config() {
  RunConfig config = bench_training_config();
  config.model.hidden_size = 64;
  config.model.intermediate_size = 128;
  config.model.num_hidden_layers = 2;
  config.model.num_attention_heads = 2;
  config.model.max_position_embeddings = 32;
  config.train.sequence_length = 16;
  config.train.per_device_train_batch_size = 2;
  return config;
}

void check_row(const BenchRow& row, const char* workload) {
  CHECK(row.workload == workload);
  CHECK(row.unit == "tokens/s");
  CHECK(row.value.repeats >= 2);
  CHECK(row.value.min > 0);
  CHECK(row.fraction_of_limit > 0);
  CHECK(row.fraction_of_limit < 1);
  if (reset_peak_resident_bytes()) CHECK(row.peak_memory_bytes > 0);
}

double detail(const BenchRow& row, const std::string& name) {
  for (const auto& [key, value] : row.details)
    if (key == name) return value;
  FAIL("no detail " << name);
  return 0;
}

ReadRate no_cache_read() {
  return [](std::int64_t) -> double {
    FAIL("the third-level cache is not asked for");
    return 0;
  };
}

TEST_CASE("training is measured against the operations of its projections") {
  const auto backend = make_cpu_backend(1);
  RunConfig config = small_config();
  const BenchRow row = measure_training(*backend, config, kRates, kShort);
  check_row(row, "train");
  const Operations token = training_operations(config.model, config.train.gradient_precision());
  CHECK(row.limit == 1 / token.seconds(kRates));
  CHECK(row.bound_by == token.bound_by(kRates));
  const double tokens = detail(row, "tokens_per_update");
  CHECK(detail(row, "ms_at_limit_projections") == 1e3 * tokens * token.seconds(kRates));

  config.train.max_steps = 2;
  CHECK_THROWS_AS(measure_training(*backend, config, kRates, kShort), UsageError);
}

TEST_CASE("a training with a quantisation warm-up is measured without it") {
  const auto backend = make_cpu_backend(1);
  RunConfig config = small_config();
  config.train.quant_warmup_steps = 1000;
  check_row(measure_training(*backend, config, kRates, kShort), "train");
}

TEST_CASE("prefill is measured against the operations of its projections") {
  const auto backend = make_cpu_backend(1);
  const ModelConfig config = small_config().model;
  const auto model = make_synthetic_model(*backend, config, ThreadTeam(1));
  const DType kv_cache = GENERATE(DType::f32, DType::f16);
  const BenchRow row = measure_prefill(*model, 32, kRates, kShort, kv_cache);
  check_row(row, "prefill");
  CHECK(detail(row, "bytes_kv_cache") == double(2 * 2 * 32 * 64 * size_of(kv_cache)));
  CHECK(row.limit == 1 / forward_operations(config).seconds(kRates));
  CHECK(row.bound_by == "int8_dot");
  CHECK(detail(row, "tokens") == 32);
}

TEST_CASE("decode is measured against the bytes of a token, from the cache that holds them") {
  const auto backend = make_cpu_backend(1);
  const auto model = make_synthetic_model(*backend, small_config().model, ThreadTeam(1));
  const std::int64_t bytes = decode_bytes(*model, DType::f32, 31).total();
  const BenchRow row = measure_decode(*model, 31, kRates, no_cache_read(), kShort, DType::f32);
  check_row(row, "decode");
  CHECK(row.limit == 1e18 / double(bytes));
  CHECK(row.bound_by == "l2_read");
  CHECK(detail(row, "bytes_per_token") == double(bytes));

  MachineRates without_l2 = kRates;
  without_l2.l2_bytes = 0;
  std::int64_t asked = 0;
  const auto half_as_fast = [&asked](std::int64_t count) {
    asked = count;
    return 5e17;
  };
  const BenchRow beyond = measure_decode(*model, 31, without_l2, half_as_fast, kShort, DType::f32);
  check_row(beyond, "decode");
  if (bytes <= cache_bytes(3)) {
    CHECK(beyond.bound_by == "l3_read");
    CHECK(asked == bytes);
    CHECK(beyond.limit == 5e17 / double(bytes));
  } else {
    CHECK(beyond.bound_by == "memory_read");
    CHECK(asked == 0);
    CHECK(beyond.limit == 1e18 / double(bytes));
  }
  // A device without a third-level cache.
  CHECK(measure_decode(*model, 31, without_l2, {}, kShort, DType::f32).bound_by == "memory_read");
}

TEST_CASE("a context that the model does not have is refused") {
  const auto backend = make_cpu_backend(1);
  const auto model = make_synthetic_model(*backend, small_config().model, ThreadTeam(1));
  CHECK_THROWS_AS(measure_prefill(*model, 33, kRates, kShort, DType::f32), UsageError);
  CHECK_THROWS_AS(measure_decode(*model, 32, kRates, {}, kShort, DType::f32), UsageError);
  CHECK_THROWS_AS(measure_decode(*model, -1, kRates, {}, kShort, DType::f32), UsageError);
}

TEST_CASE("a token reads codes and scales, the head and the keys and values before it") {
  const auto backend = make_cpu_backend(1);
  const ModelConfig config = small_config().model;
  const auto model = make_synthetic_model(*backend, config, ThreadTeam(1));
  const DecodeBytes bytes = decode_bytes(*model, DType::f32, 9);
  // Two layers of four 64 x 64 and two 64 x 128 matrices, a quarter byte a weight, and six scales.
  CHECK(bytes.projections == 2 * ((4 * 64 * 64 + 2 * 64 * 128) / 4 + 6 * 4));
  CHECK(bytes.head == 256 * 64 * 4);
  CHECK(bytes.kv_cache == 2 * 2 * 10 * 64 * 4);
  CHECK(decode_bytes(*model, DType::f16, 9).kv_cache == 2 * 2 * 10 * 64 * 2);
  model->use_head(HeadPrecision::int8);
  CHECK(decode_bytes(*model, DType::f32, 9).head == 256 * 64 + 256 * 4);
}

TEST_CASE("a synthetic model is written, loaded and asked for a token") {
  const auto backend = make_cpu_backend(1);
  RunConfig config = small_config();
  config.model.linear = GENERATE("b158", "float");
  const test::TemporaryFolder folder;
  const auto model = make_synthetic_model(*backend, config.model, ThreadTeam(1));
  const std::int64_t bytes = write_bench_model(*model, folder.path() / "model");
  CHECK(bytes > 0);
  CHECK(bytes <= bench_model_bytes(*model));
  const auto start = std::chrono::steady_clock::now();
  const LoadResult result =
      load_first_token(*backend, folder.path() / "model", HeadPrecision::int8, DType::f16);
  CHECK(result.first_token > start);
  CHECK(result.head_bytes == 256 * 64 + 256 * 4);
  // Keys and values of two layers, 32 positions of 64 halves.
  CHECK(result.kv_cache_bytes == 2 * 2 * 32 * 64 * 2);
}

}  // namespace
}  // namespace bitnet
