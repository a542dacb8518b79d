// SPDX-License-Identifier: MIT
// The int8 gradients of the GPU: the bits of the CPU backend's, except for dx with grouped scales,
// which is in bf16.
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/quant/ternary.h"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_backend_impl.h"
#include "tests/cuda/act_tensors.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using cuda::Int8Route;
using test::floats_of;
using test::to_device;
using Floats = std::vector<float>;

struct Weights {
  std::int64_t outputs = 0, groups = 0;  // groups 0: a single scale
  bool wants_dw = true;
  DType dy_type = DType::f32;
  std::vector<std::int8_t> trits = {};
  Floats scale = {}, dy = {}, dw = {};
};

struct Case {
  std::int64_t rows = 0, inputs = 0;
  bool wants_dx = true;
  DType dx_type = DType::f32;
  std::vector<std::int8_t> codes;
  Floats act_scale, dx;
  std::vector<Weights> products;
};

float& at(Floats& x, std::int64_t i) { return x[static_cast<std::size_t>(i)]; }

Floats random_floats(std::uint32_t seed, std::int64_t count, double deviation = 1) {
  const auto x = test::random_numbers(seed, count, deviation);
  return {x.begin(), x.end()};
}

Case make_case(std::int64_t rows, std::int64_t inputs, const std::vector<Weights>& shapes) {
  Case c;
  c.rows = rows;
  c.inputs = inputs;
  for (const double v : test::random_numbers(1, rows * inputs, 40)) {
    c.codes.push_back(static_cast<std::int8_t>(std::fmin(std::fmax(v, -128.0), 127.0)));
  }
  c.act_scale = random_floats(2, rows, 0.01);
  c.dx = random_floats(50, rows * inputs);
  c.products = shapes;
  std::uint32_t seed = 3;
  for (Weights& w : c.products) {
    for (const double v : test::random_numbers(seed++, w.outputs * inputs)) {
      w.trits.push_back(static_cast<std::int8_t>((v > 0.5) - (v < -0.5)));
    }
    w.scale = random_floats(seed++, w.groups == 0 ? 1 : w.outputs * w.groups, 0.02);
    w.dy = random_floats(seed++, rows * w.outputs, 1e-4);
    w.dw = random_floats(seed++, w.outputs * inputs, 1e-3);
  }
  return c;
}

struct Results {
  Floats dx;
  std::vector<Floats> dw;
};

// The same numbers in f32.
Case widened(Case c) {
  c.dx_type = DType::f32;
  for (Weights& w : c.products) {
    w.dy = test::rounded_to(w.dy_type, w.dy);
    w.dy_type = DType::f32;
  }
  return c;
}

Results run(Backend& be, const Case& c) {
  const Tensor codes = to_device(be, {c.rows, c.inputs}, c.codes),
               act_scale = to_device(be, {c.rows}, c.act_scale);
  Tensor dx = test::act_to_device(be, c.dx_type, {c.rows, c.inputs}, c.dx);
  std::vector<Tensor> kept;
  kept.reserve(4 * c.products.size());
  const auto keep = [&](Tensor t) -> TensorView {
    kept.push_back(std::move(t));
    return kept.back();
  };
  std::vector<BitLinearGradient> gradients;
  std::vector<TensorView> dw;
  for (const Weights& w : c.products) {
    std::vector<std::uint8_t> packed(w.trits.size() / 4);
    pack_codes(w.trits, w.outputs, c.inputs, packed);
    const Shape scale_shape = w.groups == 0 ? Shape{1} : Shape{w.outputs, w.groups};
    dw.push_back(keep(to_device(be, {w.outputs, c.inputs}, w.dw)));
    gradients.push_back({keep(to_device(be, {w.outputs / 4, c.inputs}, packed)),
                         keep(to_device(be, scale_shape, w.scale)),
                         keep(test::act_to_device(be, w.dy_type, {c.rows, w.outputs}, w.dy)),
                         w.wants_dw ? dw.back() : TensorView()});
  }
  be.bit_linear_backward(codes, act_scale, gradients, GradientPrecision::int8,
                         c.wants_dx ? dx.view() : TensorView());
  Results r{test::act_floats(be, dx), {}};
  for (const TensorView& t : dw) r.dw.push_back(floats_of(be, t));
  return r;
}

// Equal, or both NaN.
bool same(const Floats& a, const Floats& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  }
  return true;
}

void check_same(const Results& actual, const Results& expected) {
  CHECK(same(actual.dx, expected.dx));
  for (std::size_t i = 0; i < expected.dw.size(); ++i) {
    INFO("product " << i);
    CHECK(same(actual.dw[i], expected.dw[i]));
  }
}

// In one execution, by each route.
void check_routes(const Case& c) {
  const auto cpu = make_cpu_backend(1, "scalar");
  Results expected = run(*cpu, widened(c));
  expected.dx = test::rounded_to(c.dx_type, expected.dx);
  for (const auto route : {Int8Route::small_tile, Int8Route::large_tile, Int8Route::cublaslt}) {
    CAPTURE(c.rows, c.inputs, route);
    emulator::reset();
    {
      const auto gpu = make_cuda_backend();
      dynamic_cast<cuda::CudaBackend&>(*gpu).force_int8_route(route, cuda::kInt8BlockSums);
      check_same(run(*gpu, c), expected);
    }
    CHECK(emulator::reset() == 0);
  }
}

TEST_CASE("int8 gradients on the GPU have the bits of the CPU's in every execution") {
  const std::int64_t rows = GENERATE(1, 33, 260);
  CAPTURE(rows);
  const Case c =
      rows < 256 ? make_case(rows, 64, {{12}, {68, 0, false}, {20}}) : make_case(rows, 64, {{12}});
  const auto cpu = make_cpu_backend(1, "scalar");
  const Results expected = run(*cpu, c);
  test::in_each_execution([&] {
    const auto gpu = make_cuda_backend();
    check_same(run(*gpu, c), expected);
  });
}

TEST_CASE("int8 gradients on the GPU have the bits of the CPU's by every route") {
  check_routes(make_case(255, 64, {{68}, {4}}));
  check_routes(make_case(530, 64, {{20}}));
  check_routes(make_case(17, 192, {{268}}));
}

TEST_CASE("int8 gradients on the GPU read dy in bf16, and round dx once after all products") {
  constexpr DType kBf16 = DType::bf16;
  for (const DType dx : {DType::f32, kBf16}) {
    for (const std::vector<Weights>& shapes : {std::vector<Weights>{{20, 0, true, kBf16}},
                                               {{12, 0, false}, {68, 0, true, kBf16}, {4}},
                                               {{12, 0, true, kBf16}, {36, 0, true, kBf16}}}) {
      Case c = make_case(260, 64, shapes);
      c.dx_type = dx;
      check_routes(c);
    }
  }
}

TEST_CASE("with grouped weight scales dx in bf16 is that in f32, rounded once") {
  constexpr DType kBf16 = DType::bf16;
  for (const std::vector<Weights>& shapes : {std::vector<Weights>{{36, 2, true, kBf16}},
                                             {{36, 2}, {20, 0, true, kBf16}, {12, 1, true, kBf16}},
                                             {{12, 0, true, kBf16}, {20}, {36, 2, true, kBf16}}}) {
    Case c = make_case(20, 128, shapes);
    c.dx_type = kBf16;
    emulator::reset();
    {
      const auto gpu = make_cuda_backend();
      Results expected = run(*gpu, widened(c));
      expected.dx = test::rounded_to(kBf16, expected.dx);
      check_same(run(*gpu, c), expected);
    }
    CHECK(emulator::reset() == 0);
  }
}

TEST_CASE("int8 gradients on the GPU carry what is not finite as on the CPU") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float odd : {std::numeric_limits<float>::quiet_NaN(), -kInfinity}) {
    Case c = make_case(260, 64, {{20}, {12}});
    at(c.products[0].dy, 20 * 20 + 7) = odd;
    check_routes(c);
    c = make_case(40, 64, {{12}});
    at(c.act_scale, 20) = odd;
    check_routes(c);
  }
}

TEST_CASE("int8 gradients on the GPU round any magnitude alike, and zeros to zeros") {
  Case c = make_case(40, 64, {{12}});
  for (auto& v : c.products[0].dy) v *= 0x1p-60f;
  check_routes(c);
  c.products[0].dy.assign(c.products[0].dy.size(), 0);
  check_routes(c);
}

TEST_CASE("either int8 gradient on the GPU is computed without the other, and of no rows none") {
  Case c = make_case(37, 64, {{12}});
  c.wants_dx = false;
  check_routes(c);
  c.wants_dx = true, c.products[0].wants_dw = false;
  check_routes(c);
  check_routes(make_case(0, 64, {{12}}));
}

TEST_CASE(
    "with grouped weight scales dx on the GPU is within bf16's rounding, and dw is the CPU's") {
  const Case c = make_case(20, 128, {{36, 2}, {20}, {12, 1}});
  const auto cpu = make_cpu_backend(1, "scalar");
  const Results expected = run(*cpu, c);
  // Of dy · ŵ each factor is rounded to 2^-9, so a term is off by 2^-8 and a little; fp32 sums over
  // 100 outputs on both sides. The product with a single scale adds the same on both.
  std::vector<double> exact(expected.dx.begin(), expected.dx.end()), bound(exact.size());
  for (const Weights& w : c.products) {
    for (std::int64_t t = 0; t < c.rows; ++t) {
      for (std::int64_t n = 0; n < w.outputs; ++n) {
        const double dy = std::fabs(w.dy[static_cast<std::size_t>(t * w.outputs + n)]);
        for (std::int64_t k = 0; k < c.inputs; ++k) {
          const std::int64_t groups = std::max<std::int64_t>(w.groups, 1);
          const std::int64_t scale = w.groups == 0 ? 0 : n * groups + k / (c.inputs / groups);
          const bool zero = w.trits[static_cast<std::size_t>(n * c.inputs + k)] == 0;
          bound[static_cast<std::size_t>(t * c.inputs + k)] +=
              zero ? 0
                   : dy * std::fabs(w.scale[static_cast<std::size_t>(scale)]) *
                         (1.01 * 0x1p-8 + 210 * test::kRounding);
        }
      }
    }
  }
  emulator::reset();
  {
    const auto gpu = make_cuda_backend();
    const Results actual = run(*gpu, c);
    CHECK(test::worst_ratio(actual.dx, exact, bound) <= 1);
    CHECK(actual.dw == expected.dw);
  }
  CHECK(emulator::reset() == 0);
}

TEST_CASE("gradients in fp32, of no products or of wrong shapes are refused on the GPU") {
  emulator::reset();
  {
    const auto gpu = make_cuda_backend();
    const Tensor codes = gpu->make_tensor(DType::i8, {2, 64}),
                 act_scale = gpu->make_tensor(DType::f32, {2}),
                 packed = gpu->make_tensor(DType::u8, {1, 64}),
                 scale = gpu->make_tensor(DType::f32, {1}),
                 dy = gpu->make_tensor(DType::f32, {2, 4}),
                 wrong = gpu->make_tensor(DType::f32, {2, 8});
    Tensor dx = gpu->make_tensor(DType::f32, {2, 64}), dw = gpu->make_tensor(DType::f32, {4, 64});
    const auto backward = [&](const Tensor& of, GradientPrecision precision) {
      gpu->bit_linear_backward(codes, act_scale, {packed, scale, of, dw}, precision, dx);
    };
    CHECK_THROWS_WITH(backward(dy, GradientPrecision::fp32),
                      Catch::Matchers::Contains("expected bf16 or int8"));
    CHECK_THROWS_AS(backward(wrong, GradientPrecision::int8), ContractError);
    CHECK_THROWS_AS(gpu->bit_linear_backward(codes, act_scale, std::span<const BitLinearGradient>(),
                                             GradientPrecision::int8, dx),
                    ContractError);
    CHECK_NOTHROW(backward(dy, GradientPrecision::int8));
  }
  CHECK(emulator::reset() == 0);
}

}  // namespace
}  // namespace bitnet
