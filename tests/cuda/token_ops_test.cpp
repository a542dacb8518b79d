// SPDX-License-Identifier: MIT
// Embedding and sums on the GPU against the CPU backend and plain loops.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/cpu/cpu_backend.h"
#include "cuda/cuda_backend.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using test::floats_of;
using test::to_device;

TEST_CASE("embedding on the GPU has the bits of the CPU's, forward and backward") {
  const std::int64_t width = GENERATE(1, 7, 64, 132);
  const std::int64_t rows = 1100, vocabulary = 12;
  CAPTURE(width);
  const auto tokens = test::random_tokens(1, rows, vocabulary);
  const auto table = test::random_numbers(2, vocabulary * width),
             dy = test::random_numbers(3, rows * width);
  struct Results {
    std::vector<float> y, dtable;
  };
  const auto run = [&](Backend& backend) {
    const Tensor ids = to_device(backend, {rows}, tokens);
    Tensor y = backend.make_tensor(DType::f32, {rows, width});
    backend.embedding(ids, to_device(backend, {vocabulary, width}, table), y);
    Tensor dtable = to_device(backend, {vocabulary, width}, table);
    backend.embedding_backward(ids, to_device(backend, {rows, width}, dy), dtable);
    return Results{floats_of(backend, y), floats_of(backend, dtable)};
  };
  const Results expected = run(*make_cpu_backend(1, "scalar"));
  test::in_each_execution([&] {
    const Results found = run(*make_cuda_backend());
    CHECK(found.y == expected.y);
    CHECK(found.dtable == expected.dtable);
  });
}

TEST_CASE("embedding on the GPU widens a bf16 table exactly") {
  const std::int64_t width = GENERATE(5, 16);
  const auto gpu = make_cuda_backend();
  std::vector<std::uint16_t> halves(static_cast<std::size_t>(3 * width));
  for (std::size_t k = 0; k < halves.size(); ++k) {
    halves[k] = static_cast<std::uint16_t>(0x3f80 + 37 * k);
  }
  Tensor table = gpu->make_tensor(DType::bf16, {3, width});
  gpu->copy_from_host(halves.data(), table);
  Tensor y = gpu->make_tensor(DType::f32, {2, width});
  gpu->embedding(to_device(*gpu, {2}, std::vector<std::int32_t>{2, 0}), table, y);
  const std::vector<float> found = floats_of(*gpu, y);
  for (std::size_t k = 0; k < found.size(); ++k) {
    const auto columns = static_cast<std::size_t>(width);
    const std::size_t from = k < columns ? 2 * columns + k : k - columns;
    CHECK(found[k] == std::bit_cast<float>(std::uint32_t{halves[from]} << 16));
  }
}

TEST_CASE("embedding on the GPU of no tokens does nothing, and refuses shapes that do not fit") {
  const auto gpu = make_cuda_backend();
  Tensor table = gpu->make_tensor(DType::f32, {4, 8}), none = gpu->make_tensor(DType::i32, {0}),
         no_rows = gpu->make_tensor(DType::f32, {0, 8}), tokens = gpu->make_tensor(DType::i32, {2}),
         y = gpu->make_tensor(DType::f32, {2, 8});
  gpu->embedding(none, table, no_rows);
  gpu->embedding_backward(none, no_rows, table);
  CHECK_THROWS_AS(gpu->embedding(tokens, table, no_rows), ContractError);
  CHECK_THROWS_AS(gpu->embedding(y, table, y), ContractError);
  CHECK_THROWS_AS(gpu->embedding(tokens, gpu->make_tensor(DType::f16, {4, 8}), y), ContractError);
  CHECK_THROWS_AS(gpu->embedding_backward(tokens, no_rows, table), ContractError);
}

TEST_CASE("sums on the GPU are the same in every execution and near the exact ones") {
  const std::vector<std::int64_t> sizes = {1, 0, 3, 4096, 4099, 40'000};
  std::vector<std::vector<float>> values;
  std::vector<double> squares;
  double of_last = 0, magnitude_of_last = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const auto x = test::random_numbers(static_cast<std::uint32_t>(i), sizes[i]);
    values.emplace_back(x.begin(), x.end());
    squares.push_back(0);
    for (const double v : x) squares.back() += v * v;
    of_last = magnitude_of_last = 0;
    for (const double v : x) of_last += v, magnitude_of_last += std::fabs(v);
  }
  std::vector<double> first;
  test::in_each_execution([&] {
    const auto gpu = make_cuda_backend();
    std::vector<Tensor> tensors;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      tensors.push_back(to_device(*gpu, {sizes[i]}, values[i]));
    }
    const std::vector<ConstTensorView> views(tensors.begin(), tensors.end());
    std::vector<double> sums(sizes.size(), -1.0);
    gpu->sums({}, views, sums);
    // Either sum of n terms is off by less than n units in the last place of the sum of magnitudes.
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      CHECK(std::fabs(sums[i] - squares[i]) <=
            2 * static_cast<double>(sizes[i]) * 0x1p-53 * squares[i]);
    }
    sums.push_back(gpu->sum(views.back()));
    CHECK(std::fabs(sums.back() - of_last) <=
          2 * static_cast<double>(sizes.back()) * 0x1p-53 * magnitude_of_last);
    CHECK(gpu->sum(views[1]) == 0.0);
    CHECK(gpu->sum_of_squares(views[4]) == sums[4]);
    if (first.empty()) first = sums;
    CHECK(sums == first);
  });
}

TEST_CASE("sums of squares on the GPU of more tensors than a launch takes") {
  const auto gpu = make_cuda_backend();
  const Tensor x = to_device(*gpu, {300, 3}, test::random_numbers(1, 900));
  std::vector<ConstTensorView> views;
  for (std::int64_t i = 0; i < 300; ++i) views.push_back(x.view().rows(i, 1));
  std::vector<double> sums(300);
  gpu->sums({}, views, sums);
  const std::vector<float> values = floats_of(*gpu, x);
  for (std::size_t i = 0; i < 300; ++i) {
    const double a = values[3 * i], b = values[3 * i + 1], c = values[3 * i + 2];
    REQUIRE(sums[i] == a * a + c * c + b * b);  // as the lanes of a tile fold
  }
}

TEST_CASE("sums on the GPU show what is not finite, and refuse what does not fit") {
  const auto gpu = make_cuda_backend();
  std::vector<float> values(5000, 1.0f);
  values[4500] = std::numeric_limits<float>::infinity();
  CHECK(gpu->sum(to_device(*gpu, {5000}, values)) == std::numeric_limits<double>::infinity());
  values[1] = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = to_device(*gpu, {5000}, values);
  CHECK(std::isnan(gpu->sum(x)));
  CHECK(std::isnan(gpu->sum_of_squares(x)));
  CHECK(gpu->sum({}) == 0.0);
  const ConstTensorView view = x;
  std::vector<double> two(2);
  CHECK_THROWS_AS(gpu->sums({}, std::span(&view, 1), two), ContractError);
  CHECK_THROWS_AS(gpu->sum(gpu->make_tensor(DType::i32, {4})), ContractError);
  gpu->sums({}, {}, {});
}

}  // namespace
}  // namespace bitnet
