// SPDX-License-Identifier: MIT
// The integer products of the GPU have the bits of the CPU backend's, whichever way they take.
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_backend_impl.h"
#include "tests/cuda/act_tensors.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using cuda::Int8Route;
using test::floats_of;
using test::to_device;
using Floats = std::vector<float>;

enum class Residual { none, apart, in_place };

struct Projection {
  std::int64_t outputs, groups;  // groups 0: a single scale
  Residual residual;
  DType y = DType::f32;
};

Floats random_floats(std::uint32_t seed, std::int64_t count) {
  const auto x = test::random_numbers(seed, count);
  return {x.begin(), x.end()};
}

std::vector<std::int8_t> random_codes(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int8_t> x(static_cast<std::size_t>(count));
  for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
  return x;
}

std::vector<std::uint8_t> random_packed(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(count));
  for (auto& byte : packed) {
    unsigned bits = 0;
    for (int i = 0; i < 4; ++i) bits |= random() % 3 << (2 * i);
    byte = static_cast<std::uint8_t>(bits);
  }
  return packed;
}

// The y of all projections, one after another. The CPU's are computed in f32 and rounded here.
Floats products(Backend& backend, std::int64_t rows, std::int64_t inputs,
                const std::vector<Projection>& projections) {
  const Tensor codes = to_device(backend, {rows, inputs}, random_codes(rows * inputs, 1)),
               act_scale = to_device(backend, {rows}, random_floats(2, rows));
  std::vector<Tensor> kept;
  kept.reserve(4 * projections.size());
  const auto keep = [&](Tensor t) -> TensorView {
    kept.push_back(std::move(t));
    return kept.back();
  };
  std::vector<BitLinearProduct> products;
  std::uint32_t seed = 3;
  for (const Projection& p : projections) {
    const Shape shape{rows, p.outputs};
    const auto residual = random_floats(seed++, rows * p.outputs);
    BitLinearProduct product;
    product.packed = keep(
        to_device(backend, {p.outputs / 4, inputs}, random_packed(p.outputs / 4 * inputs, seed++)));
    product.weight_scale =
        keep(p.groups == 0 ? to_device(backend, {1}, random_floats(seed++, 1))
                           : to_device(backend, {p.outputs, p.groups},
                                       random_floats(seed++, p.outputs * p.groups)));
    const DType y_type = backend.name() == "cpu" ? DType::f32 : p.y;
    product.y = keep(test::act_to_device(backend, y_type, shape, residual));
    if (p.residual == Residual::apart) product.residual = keep(to_device(backend, shape, residual));
    if (p.residual == Residual::in_place) product.residual = product.y;
    products.push_back(product);
  }
  backend.bit_linear(codes, act_scale, products);
  Floats all;
  for (std::size_t i = 0; i < products.size(); ++i) {
    const Floats y = test::rounded_to(projections[i].y, test::act_floats(backend, products[i].y));
    all.insert(all.end(), y.begin(), y.end());
  }
  return all;
}

// The GPU backend, with all int8 products on tensor cores going one way.
std::unique_ptr<Backend> gpu_by(std::optional<Int8Route> route,
                                std::int64_t block_sums = cuda::kInt8BlockSums) {
  auto gpu = make_cuda_backend();
  if (route) dynamic_cast<cuda::CudaBackend&>(*gpu).force_int8_route(*route, block_sums);
  return gpu;
}
const std::optional<Int8Route> kRoutes[] = {
    {}, Int8Route::small_tile, Int8Route::large_tile, Int8Route::cublaslt};

const std::vector<Projection> kMixed = {{132, 0, Residual::none},
                                        {20, 0, Residual::apart},
                                        {36, 3, Residual::in_place},
                                        {76, 0, Residual::in_place},
                                        {4, 1, Residual::none}};

TEST_CASE("bit_linear of few and of many tokens is the CPU's on the GPU") {
  const std::int64_t rows = GENERATE(1, 3, 8, 9, 40);
  const auto cpu = make_cpu_backend(1, "scalar");
  const Floats expected = products(*cpu, rows, 192, kMixed);
  CAPTURE(rows);
  test::in_each_execution([&] {
    const auto gpu = gpu_by({});
    CHECK(products(*gpu, rows, 192, kMixed) == expected);
  });
}

TEST_CASE("bit_linear has the same bits by every route, and without cuBLASLt") {
  const auto cpu = make_cpu_backend(1, "scalar");
  for (const std::int64_t rows : {33, 130}) {
    const Floats expected = products(*cpu, rows, 192, kMixed);
    for (const auto& route : kRoutes) {
      for (const bool has_cublaslt : {true, false}) {
        CAPTURE(rows, route.has_value(), route.value_or(Int8Route::small_tile), has_cublaslt);
        emulator::reset();
        emulator::config().device.has_cublaslt = has_cublaslt;
        {
          const auto gpu = gpu_by(route);
          CHECK(products(*gpu, rows, 192, kMixed) == expected);
        }
        CHECK(emulator::reset() == 0);
      }
    }
  }
}

const std::vector<Projection> kNarrow = {{132, 0, Residual::none, DType::bf16},
                                         {20, 0, Residual::in_place},
                                         {36, 3, Residual::none, DType::bf16},
                                         {76, 0, Residual::none},
                                         {4, 1, Residual::none, DType::bf16}};

TEST_CASE("bit_linear into bf16 is the CPU's y rounded once, beside products in f32") {
  const std::int64_t rows = GENERATE(1, 3, 8, 9, 40);
  const auto cpu = make_cpu_backend(1, "scalar");
  const Floats expected = products(*cpu, rows, 192, kNarrow);
  CAPTURE(rows);
  test::in_each_execution([&] {
    const auto gpu = gpu_by({});
    CHECK(products(*gpu, rows, 192, kNarrow) == expected);
  });
}

TEST_CASE("bit_linear into bf16 has the same bits by every route, and in blocks of rows") {
  const auto cpu = make_cpu_backend(1, "scalar");
  for (const std::int64_t rows : {33, 530}) {
    const Floats expected = products(*cpu, rows, 64, {{20, 0, Residual::none, DType::bf16}});
    for (const auto& route : kRoutes) {
      CAPTURE(rows, route.has_value(), route.value_or(Int8Route::small_tile));
      emulator::reset();
      {
        const auto gpu = gpu_by(route, 1);
        CHECK(products(*gpu, rows, 64, {{20, 0, Residual::none, DType::bf16}}) == expected);
      }
      CHECK(emulator::reset() == 0);
    }
  }
}

TEST_CASE("bit_linear by cuBLASLt in blocks of rows adds each residual once") {
  const std::vector<Projection> projections = {{20, 0, Residual::in_place},
                                               {8, 0, Residual::apart}};
  const auto cpu = make_cpu_backend(1, "scalar");
  const Floats expected = products(*cpu, 530, 64, projections);  // two blocks of 256, and the rest
  emulator::reset();
  {
    const auto gpu = gpu_by(Int8Route::cublaslt, 1);
    CHECK(products(*gpu, 530, 64, projections) == expected);
  }
  CHECK(emulator::reset() == 0);
}

TEST_CASE("a product that is worth a probe is the CPU's, before and after it") {
  const std::vector<Projection> large = {GENERATE(Projection{512, 0, Residual::in_place},
                                                  Projection{512, 0, Residual::none, DType::bf16})};
  const auto cpu = make_cpu_backend(1);
  const Floats expected = products(*cpu, 128, 512, large);
  emulator::reset();
  {
    const auto gpu = make_cuda_backend();
    for (int i = 0; i < 2; ++i) CHECK(products(*gpu, 128, 512, large) == expected);
  }
  CHECK(emulator::reset() == 0);
}

TEST_CASE(
    "bit_linear of no tokens or no products does nothing on the GPU, wrong shapes are refused") {
  emulator::reset();
  {
    const auto gpu = make_cuda_backend();
    CHECK(products(*gpu, 0, 64, {{12, 0, Residual::apart}}).empty());
    const Tensor codes = gpu->make_tensor(DType::i8, {2, 64}),
                 act_scale = gpu->make_tensor(DType::f32, {2}),
                 packed = gpu->make_tensor(DType::u8, {1, 64}),
                 scale = gpu->make_tensor(DType::f32, {1}),
                 residual = gpu->make_tensor(DType::f32, {2, 8});
    Tensor y = gpu->make_tensor(DType::f32, {2, 4});
    CHECK_THROWS_AS(gpu->bit_linear(codes, act_scale, {packed, scale, y, residual}), ContractError);
    Tensor narrow = gpu->make_tensor(DType::bf16, {2, 4}),
           codes_like = gpu->make_tensor(DType::i8, {2, 4});
    CHECK_THROWS_AS(gpu->bit_linear(codes, act_scale, {packed, scale, narrow, y}), ContractError);
    CHECK_THROWS_AS(gpu->bit_linear(codes, act_scale, {packed, scale, codes_like}), ContractError);
    const std::vector<BitLinearProduct> nine(9, BitLinearProduct{packed, scale, y});
    CHECK_THROWS_AS(gpu->bit_linear(codes, act_scale, nine), ContractError);
  }
  CHECK(emulator::reset() == 0);
}

Floats head(Backend& backend, std::int64_t rows, std::int64_t outputs, std::int64_t inputs) {
  const Tensor codes = to_device(backend, {rows, inputs}, random_codes(rows * inputs, 1)),
               weights = to_device(backend, {outputs, inputs}, random_codes(outputs * inputs, 2)),
               act_scale = to_device(backend, {rows}, random_floats(3, rows)),
               row_scale = to_device(backend, {outputs}, random_floats(4, outputs));
  Tensor y = backend.make_tensor(DType::f32, {rows, outputs});
  backend.int8_linear(codes, act_scale, weights, row_scale, y);
  return floats_of(backend, y);
}

TEST_CASE("int8_linear of any number of outputs and inputs is the CPU's on the GPU") {
  struct HeadShape {
    std::int64_t rows, outputs, inputs;
  };
  const auto [rows, outputs, inputs] =
      GENERATE(HeadShape{1, 1, 1}, HeadShape{1, 70, 640}, HeadShape{5, 33, 96},
               HeadShape{67, 32, 64}, HeadShape{12, 9, 40}, HeadShape{20, 257, 48});
  CAPTURE(rows, outputs, inputs);
  const auto cpu = make_cpu_backend(1, "scalar");
  const Floats expected = head(*cpu, rows, outputs, inputs);
  test::in_each_execution([&] {
    const auto gpu = gpu_by({});
    CHECK(head(*gpu, rows, outputs, inputs) == expected);
  });
}

TEST_CASE("int8_linear has the same bits by every route") {
  const auto cpu = make_cpu_backend(1, "scalar");
  for (const std::int64_t outputs : {256, 259}) {
    const Floats expected = head(*cpu, 20, outputs, 128);
    for (const auto& route : kRoutes) {
      CAPTURE(outputs, route.has_value(), route.value_or(Int8Route::small_tile));
      emulator::reset();
      {
        const auto gpu = gpu_by(route);
        CHECK(head(*gpu, 20, outputs, 128) == expected);
      }
      CHECK(emulator::reset() == 0);
    }
  }
}

}  // namespace
}  // namespace bitnet
