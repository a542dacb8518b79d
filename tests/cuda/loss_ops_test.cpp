// SPDX-License-Identifier: MIT
// Cross-entropy on the GPU against the double reference, AdamW with the CPU backend's bits.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "cuda/cuda_backend.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/reference/ops.h"
#include "tests/reference/ops_backward.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using test::floats_of;
using test::kRounding;
using test::random_numbers;
using test::to_device;
using test::worst_ratio;
using Doubles = std::vector<double>;
using Floats = std::vector<float>;

TEST_CASE("the GPU's cross-entropy and its gradient are within fp32 rounding of the reference") {
  const std::int64_t vocabulary = GENERATE(2, 33, 256, 1000, 5003);
  CAPTURE(vocabulary);
  const std::int64_t rows = 5;
  const float scale = 0.125f;
  const Doubles logits = random_numbers(1, rows * vocabulary, 6);
  std::vector<std::int32_t> targets = test::random_tokens(2, rows, vocabulary);
  targets[3] = -1;
  // Arguments of exp are rounded at the size of the logits; then a sum of `vocabulary` positive
  // terms, each with a few functions and products on its way.
  Doubles loss_bound, dlogits_bound;
  for (std::int64_t row = 0; row < rows; ++row) {
    double largest = 0;
    for (std::int64_t i = 0; i < vocabulary; ++i) {
      largest = std::max(largest, std::abs(logits[std::size_t(row * vocabulary + i)]));
    }
    const bool ignored = targets[std::size_t(row)] < 0;
    const double relative = (double(vocabulary) + 100 + 4 * largest) * kRounding;
    loss_bound.push_back(ignored ? 0 : relative + 8 * largest * kRounding);
    for (std::int64_t i = 0; i < vocabulary; ++i) {
      dlogits_bound.push_back(ignored ? 0 : double(scale) * relative);
    }
  }
  const Doubles exact_loss = reference::cross_entropy(logits, targets, vocabulary);
  Doubles exact_gradient = reference::cross_entropy_backward(logits, targets, vocabulary);
  for (double& value : exact_gradient) value *= double(scale);
  test::in_each_execution([&] {
    const auto gpu = make_cuda_backend();
    Tensor x = to_device(*gpu, {rows, vocabulary}, logits), ids = to_device(*gpu, {rows}, targets);
    Tensor loss = gpu->make_tensor(DType::f32, {rows}),
           again = gpu->make_tensor(DType::f32, {rows});
    gpu->cross_entropy(x, ids, again, scale, {});
    gpu->cross_entropy(x, ids, loss, scale, x);
    CHECK(worst_ratio(floats_of(*gpu, loss), exact_loss, loss_bound) <= 1);
    CHECK(worst_ratio(floats_of(*gpu, x), exact_gradient, dlogits_bound) <= 1);
    CHECK(floats_of(*gpu, again) == floats_of(*gpu, loss));
  });
}

TEST_CASE("a row's cross-entropy on the GPU does not depend on the other rows") {
  const std::int64_t vocabulary = GENERATE(50, 1030);  // rows of different alignment
  const auto gpu = make_cuda_backend();
  Tensor x = to_device(*gpu, {10, vocabulary}, random_numbers(1, 10 * vocabulary, 3)),
         ids = to_device(*gpu, {10}, test::random_tokens(2, 10, vocabulary)),
         loss = gpu->make_tensor(DType::f32, {10}), one = gpu->make_tensor(DType::f32, {1}),
         gradients = gpu->make_tensor(DType::f32, {10, vocabulary}),
         gradient = gpu->make_tensor(DType::f32, {1, vocabulary});
  gpu->cross_entropy(x, ids, loss, 1.0f, gradients);
  for (std::int64_t row = 0; row < 10; ++row) {
    gpu->cross_entropy(x.view().rows(row, 1), ids.view().rows(row, 1), one, 1.0f, gradient);
    CHECK(floats_of(*gpu, one) == floats_of(*gpu, loss.view().rows(row, 1)));
    CHECK(floats_of(*gpu, gradient) == floats_of(*gpu, gradients.view().rows(row, 1)));
  }
}

TEST_CASE("the GPU's AdamW steps have the CPU's bits") {
  const std::int64_t count = GENERATE(1, 133, 1028);
  const auto run = [&](Backend& be) {
    Tensor p = to_device(be, {count}, random_numbers(1, count)),
           m = be.make_tensor(DType::f32, {count}), v = be.make_tensor(DType::f32, {count});
    for (std::int64_t step = 1; step <= 3; ++step) {
      const AdamWStep s{.learning_rate = 0.01,
                        .beta1 = 0.9,
                        .beta2 = 0.95,
                        .eps = 1e-8,
                        .weight_decay = 0.1,
                        .step = step,
                        .grad_scale = 0.3};
      be.adamw(s, to_device(be, {count}, random_numbers(std::uint32_t(10 + step), count)), p, m, v);
    }
    Floats all = floats_of(be, p);
    for (const Tensor* t : {&m, &v}) {
      const Floats values = floats_of(be, *t);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  };
  const auto cpu = make_cpu_backend(1, "scalar");
  const Floats expected = run(*cpu);
  test::in_each_execution([&] {
    const auto gpu = make_cuda_backend();
    CHECK(run(*gpu) == expected);
  });
}

TEST_CASE("a NaN gradient comes through the GPU's AdamW, to its element alone") {
  const auto gpu = make_cuda_backend();
  Tensor gradient = to_device(*gpu, {6}, Floats{1, 1, NAN, 1, 1, 1}),
         p = gpu->make_tensor(DType::f32, {6}), m = gpu->make_tensor(DType::f32, {6}),
         v = gpu->make_tensor(DType::f32, {6});
  gpu->adamw({.learning_rate = 0.1}, gradient, p, m, v);
  const Floats values = floats_of(*gpu, p);
  for (std::size_t i = 0; i < 6; ++i) CHECK(std::isnan(values[i]) == (i == 2));
}

TEST_CASE("the GPU's cross-entropy and AdamW refuse wrong shapes and types") {
  const auto gpu = make_cuda_backend();
  const auto zeros = [&](Shape shape) { return gpu->make_tensor(DType::f32, shape); };
  Tensor logits = zeros({2, 5}), loss = zeros({2}), three = zeros({3}), other = zeros({5, 2});
  Tensor targets = gpu->make_tensor(DType::i32, {2});
  CHECK_THROWS_AS(gpu->cross_entropy(logits, targets, three, 1.0f, {}), ContractError);
  CHECK_THROWS_AS(gpu->cross_entropy(logits, loss, loss, 1.0f, {}), ContractError);
  CHECK_THROWS_AS(gpu->cross_entropy(logits, targets, loss, 1.0f, other), ContractError);
  CHECK_THROWS_AS(gpu->cross_entropy(loss, targets, loss, 1.0f, {}), ContractError);
  CHECK_THROWS_AS(gpu->adamw({}, loss, three, three, three), ContractError);
  CHECK_THROWS_AS(gpu->adamw({}, targets, loss, loss, loss), ContractError);
  CHECK_THROWS_AS(gpu->adamw({.step = 0}, loss, loss, loss, loss), ContractError);
}

}  // namespace
}  // namespace bitnet
