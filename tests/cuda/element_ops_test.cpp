// SPDX-License-Identifier: MIT
// Conversions, sums, dropout and rotations, with and without a cache, on the GPU: the CPU backend's bits.
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "cuda/cuda_backend.h"
#include "tests/cuda/act_tensors.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using test::floats_of;
using test::random_numbers;
using test::to_device;
using Floats = std::vector<float>;

// What `results` gives on the CPU it must give on the GPU in every execution.
void check_as_cpu(const std::function<Floats(Backend&)>& results) {
  const auto cpu = make_cpu_backend(1, "scalar");
  const Floats expected = results(*cpu);
  test::in_each_execution([&] {
    const auto gpu = make_cuda_backend();
    CHECK(results(*gpu) == expected);
  });
}

void append_to(Floats& all, Backend& be, ConstTensorView x) {
  const Floats values = floats_of(be, x);
  all.insert(all.end(), values.begin(), values.end());
}

TEST_CASE("the GPU converts to fp16 and back as the CPU does") {
  const std::int64_t count = GENERATE(1, 6, 1027);
  check_as_cpu([&](Backend& be) {
    std::vector<double> values = random_numbers(1, count, 300);
    values[0] = 1e6;  // infinity
    Tensor x = to_device(be, {count}, values), half = be.make_tensor(DType::f16, {count}),
           y = be.make_tensor(DType::f32, {count});
    be.convert(x, half);
    be.convert(half, y);
    return floats_of(be, y);
  });
}

TEST_CASE("the GPU converts bf16 exactly") {
  check_as_cpu([](Backend& be) {
    std::vector<std::uint16_t> bits;
    for (std::uint32_t i = 0; i < 1001; ++i) bits.push_back(static_cast<std::uint16_t>(i * 31));
    Tensor x = be.make_tensor(DType::bf16, {7, 143}), y = be.make_tensor(DType::f32, {7, 143});
    be.copy_from_host(bits.data(), x);
    be.convert(x, y);
    return floats_of(be, y);
  });
}

TEST_CASE("the GPU rotates in recorded operations at the position of each repetition") {
  check_as_cpu([](Backend& be) {
    const std::int64_t heads = 2, head_dim = 16, width = heads * head_dim;
    Tensor table = to_device(be, {8, head_dim}, random_numbers(1, 8 * head_dim));
    Tensor x = be.make_tensor(DType::f32, {1, 1, heads, head_dim});
    std::unique_ptr<RecordedOperations> record;
    Floats all;
    for (int position = 0; position < 6; ++position) {
      const std::vector<double> values =
          random_numbers(static_cast<std::uint32_t>(position), width);
      const Floats row(values.begin(), values.end());
      be.copy_from_host(row.data(), x);
      be.repeat(record, position, [&] { be.rope(x, table, position, RopeDirection::forward); });
      append_to(all, be, x);
    }
    return all;
  });
}

TEST_CASE("the GPU rotates and appends at once in recorded operations") {
  const DType dtype = GENERATE(DType::f32, DType::f16);
  check_as_cpu([&](Backend& be) {
    const std::int64_t heads = 2, head_dim = 16, width = heads * head_dim;
    const Shape shape{1, 1, heads, head_dim}, cache_shape{16, heads, head_dim};
    Tensor table = to_device(be, {8, head_dim}, random_numbers(1, 8 * head_dim));
    Tensor q = be.make_tensor(DType::f32, shape), k = be.make_tensor(DType::f32, shape),
           v = be.make_tensor(DType::f32, shape), keys = be.make_tensor(dtype, cache_shape),
           values = be.make_tensor(dtype, cache_shape);
    std::unique_ptr<RecordedOperations> record;
    Floats all;
    for (int position = 0; position < 6; ++position) {
      const std::vector<double> numbers =
          random_numbers(static_cast<std::uint32_t>(position), width);
      const Floats row(numbers.begin(), numbers.end());
      be.copy_from_host(row.data(), q);
      be.copy_from_host(row.data(), k);
      be.copy_from_host(row.data(), v);
      be.repeat(record, position, [&] { be.rope_append(q, k, v, table, position, keys, values); });
      append_to(all, be, k);
    }
    const auto rows_of = [&](const Tensor& cache) {
      if (dtype == DType::f32) return floats_of(be, cache);
      Tensor widened = be.make_tensor(DType::f32, cache_shape);
      be.convert(cache, widened);
      return floats_of(be, widened);
    };
    if (be.name() != "cpu") {  // whose caches interleave keys
      Tensor turned = be.make_tensor(DType::f32, cache_shape),
             rounded = be.make_tensor(DType::f16, cache_shape);
      Floats cached = all;
      cached.resize(static_cast<std::size_t>(keys.elements()));
      be.copy_from_host(cached.data(), turned);
      be.convert(turned, rounded);
      CHECK(rows_of(keys) == (dtype == DType::f32 ? cached : rows_of(rounded)));
    }
    const Floats appended = rows_of(values);
    all.insert(all.end(), appended.begin(), appended.end());
    return all;
  });
}

TEST_CASE("the GPU adds, into an operand too") {
  const std::int64_t count = GENERATE(1, 5, 2050);
  check_as_cpu([&](Backend& be) {
    Tensor a = to_device(be, {count}, random_numbers(1, count)),
           b = to_device(be, {count}, random_numbers(2, count)),
           y = be.make_tensor(DType::f32, {count});
    be.add(a, b, y);
    be.add(a, b, a);
    be.add(y, b, b);
    Floats all = floats_of(be, y);
    append_to(all, be, a);
    append_to(all, be, b);
    return all;
  });
}

TEST_CASE("the GPU drops the elements that the CPU drops") {
  const std::int64_t count = GENERATE(3, 1024, 2050);
  const double p = GENERATE(0.0, 0.1, 0.999);
  check_as_cpu([&](Backend& be) {
    const RandomStream stream{0x0123456789abcdefu, RandomPurpose::dropout, 9};
    Tensor x = to_device(be, {count}, random_numbers(1, count, 1, 5)),
           y = be.make_tensor(DType::f32, {count});
    be.dropout(x, p, stream, 0x3fffffff8u, y);  // the counter's low word ends after two blocks
    be.dropout(x, p, stream, 8, x);
    Floats all = floats_of(be, y);
    append_to(all, be, x);
    return all;
  });
}

TEST_CASE("the GPU rotates as the CPU does, and back") {
  const std::int64_t head_dim = GENERATE(2, 6, 16, 64), heads = GENERATE(1, 3);
  check_as_cpu([&](Backend& be) {
    const std::int64_t batch = 2, tokens = 3, first = 5, count = batch * tokens * heads * head_dim;
    Tensor x = to_device(be, {batch, tokens, heads, head_dim}, random_numbers(1, count)),
           table = to_device(be, {8, head_dim}, random_numbers(2, 8 * head_dim));
    be.rope(x, table, first, RopeDirection::forward);
    Floats all = floats_of(be, x);
    be.rope(x, table, first - 2, RopeDirection::backward);
    append_to(all, be, x);
    return all;
  });
}

TEST_CASE("the GPU rotates bf16 as its exact floats, rounded once") {
  const std::int64_t head_dim = GENERATE(6, 16, 64), count = 2 * 3 * 3 * head_dim;
  const auto direction = GENERATE(RopeDirection::forward, RopeDirection::backward);
  const std::vector<double> numbers = random_numbers(1, count);
  const Floats values = test::rounded_to_bf16(Floats(numbers.begin(), numbers.end()));
  const auto gpu = make_cuda_backend();
  const Tensor table = to_device(*gpu, {8, head_dim}, random_numbers(2, 8 * head_dim));
  Tensor floats = test::act_to_device(*gpu, DType::f32, {2, 3, 3, head_dim}, values),
         halves = test::act_to_device(*gpu, DType::bf16, {2, 3, 3, head_dim}, values);
  gpu->rope(floats, table, 5, direction);
  gpu->rope(halves, table, 5, direction);
  CHECK(test::act_floats(*gpu, halves) == test::rounded_to_bf16(floats_of(*gpu, floats)));
}

TEST_CASE("operations of the GPU on no elements do nothing") {
  const auto gpu = make_cuda_backend();
  Tensor none = gpu->make_tensor(DType::f32, {0, 4}), table = gpu->make_tensor(DType::f32, {2, 4}),
         halves = gpu->make_tensor(DType::f16, {0, 4}),
         heads = gpu->make_tensor(DType::f32, {1, 0, 1, 4});
  gpu->add(none, none, none);
  gpu->convert(none, halves);
  gpu->dropout(none, 0.5, {}, 0, none);
  gpu->rope(heads, table, 2, RopeDirection::forward);
  CHECK(floats_of(*gpu, table) == Floats(8));
}

TEST_CASE("the GPU's element operations refuse wrong shapes and types") {
  const auto gpu = make_cuda_backend();
  Tensor a = gpu->make_tensor(DType::f32, {2, 4}), b = gpu->make_tensor(DType::f32, {2, 3}),
         half = gpu->make_tensor(DType::f16, {2, 4}), words = gpu->make_tensor(DType::i32, {2, 4}),
         heads = gpu->make_tensor(DType::f32, {1, 2, 1, 4});
  CHECK_THROWS_AS(gpu->add(a, b, a), ContractError);
  CHECK_THROWS_AS(gpu->add(a, words, a), ContractError);
  CHECK_THROWS_AS(gpu->convert(a, b), ContractError);
  CHECK_THROWS_AS(gpu->convert(a, a), ContractError);
  CHECK_THROWS_AS(gpu->convert(words, a), ContractError);
  CHECK_THROWS_AS(gpu->dropout(a, 1.0, {}, 0, a), ContractError);
  CHECK_THROWS_AS(gpu->dropout(a, 0.5, {}, 2, a), ContractError);
  CHECK_THROWS_AS(gpu->dropout(a, 0.5, {}, 0, b), ContractError);
  CHECK_THROWS_AS(gpu->rope(heads, a, 1, RopeDirection::forward), ContractError);
  CHECK_THROWS_AS(gpu->rope(heads, b, 0, RopeDirection::forward), ContractError);
  CHECK_THROWS_AS(gpu->rope(half.view().reshaped({1, 2, 1, 4}), words, 0, RopeDirection::forward),
                  ContractError);
  CHECK_THROWS_AS(gpu->rope(words.view().reshaped({1, 2, 1, 4}), a, 0, RopeDirection::forward),
                  ContractError);
}

}  // namespace
}  // namespace bitnet
