// SPDX-License-Identifier: MIT
// The bf16 gradients of a BitLinear, with cuBLASLt and without.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "core/quant/ternary.h"
#include "cuda/cuda_backend.h"
#include "tests/cuda/act_tensors.h"
#include "tests/cuda/bf16_products.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/reference/ops_backward.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using test::as_floats;
using test::floats_of;
using test::kSumRounding;
using test::magnitudes;
using test::new_backend;
using test::product_bound;
using test::random_numbers;
using test::scaled_magnitudes;
using test::sum_of;
using test::to_device;
using test::worst_ratio;
using Doubles = std::vector<double>;
using Floats = std::vector<float>;

struct Product {
  std::int64_t outputs;
  std::vector<std::int8_t> trits;
  Floats scale;  // [1] or [N, groups]
  Doubles dy, dw;
  bool wants_dw = true;
  DType dy_type = DType::f32;
};

struct BitCase {
  std::int64_t rows, inputs, groups;  // 0 groups: a single scale
  std::vector<std::int8_t> codes;
  Floats act_scale;
  std::vector<Product> products;
  bool wants_dx = true;
  DType dx_type = DType::f32;

  BitCase(std::int64_t r, std::int64_t k, std::int64_t g, const std::vector<std::int64_t>& outputs)
      : rows(r), inputs(k), groups(g) {
    for (const double v : random_numbers(1, r * k, 50)) {
      codes.push_back(static_cast<std::int8_t>(std::fmin(std::fmax(v, -128), 127)));
    }
    act_scale = positive(2, r);
    std::uint32_t seed = 3;
    for (const std::int64_t n : outputs) {
      Product p{n, {}, positive(seed, g == 0 ? 1 : n * g), {}, {}};
      for (const double v : random_numbers(seed + 1, n * k)) {
        p.trits.push_back(static_cast<std::int8_t>((v > 0.5) - (v < -0.5)));
      }
      p.dy = random_numbers(seed + 2, r * n);
      p.dw = random_numbers(seed + 3, n * k);
      products.push_back(p);
      seed += 4;
    }
  }

  static Floats positive(std::uint32_t seed, std::int64_t count) {
    Floats x;
    for (const double v : random_numbers(seed, count, 0.02)) {
      x.push_back(static_cast<float>(std::fabs(v)) + 1e-3f);
    }
    return x;
  }
  Doubles x_hat() const {
    Doubles x;
    for (std::size_t i = 0; i < codes.size(); ++i) {
      x.push_back(double(act_scale[i / std::size_t(inputs)]) * codes[i]);
    }
    return x;
  }
  Doubles w_hat(const Product& p) const {
    const std::size_t group = groups == 0 ? p.trits.size() : std::size_t(inputs / groups);
    Doubles w;
    for (std::size_t i = 0; i < p.trits.size(); ++i)
      w.push_back(double(p.scale[i / group]) * p.trits[i]);
    return w;
  }
};

struct BitGradients {
  Floats dx;
  std::vector<Floats> dw;
};

BitGradients run(Backend& gpu, const BitCase& c) {
  const Tensor codes = to_device(gpu, {c.rows, c.inputs}, c.codes),
               act_scale = to_device(gpu, {c.rows}, c.act_scale);
  Tensor dx = test::act_to_device(gpu, c.dx_type, {c.rows, c.inputs}, Floats(c.codes.size(), 77));
  std::vector<Tensor> kept, dw;
  const auto keep = [&](Tensor t) -> ConstTensorView {
    kept.push_back(std::move(t));
    return kept.back();
  };
  std::vector<BitLinearGradient> gradients;
  for (const Product& p : c.products) {
    std::vector<std::uint8_t> packed(p.trits.size() / 4);
    pack_codes(p.trits, p.outputs, c.inputs, packed);
    const Shape scales = c.groups == 0 ? Shape{1} : Shape{p.outputs, c.groups};
    dw.push_back(to_device(gpu, {p.outputs, c.inputs}, p.dw));
    gradients.push_back(
        {keep(to_device(gpu, {p.outputs / 4, c.inputs}, packed)),
         keep(to_device(gpu, scales, p.scale)),
         keep(test::act_to_device(gpu, p.dy_type, {c.rows, p.outputs}, as_floats(p.dy))),
         p.wants_dw ? dw.back().view() : TensorView()});
  }
  gpu.bit_linear_backward(codes, act_scale, gradients, GradientPrecision::bf16,
                          c.wants_dx ? dx.view() : TensorView());
  BitGradients result{test::act_floats(gpu, dx), {}};
  for (const Tensor& t : dw) result.dw.push_back(floats_of(gpu, t));
  return result;
}

// A single scale is rounded with dy, alone: codes and trits are exact. Scales of groups are rounded
// with the weights.
void check_close(const BitCase& c, const BitGradients& actual) {
  Doubles dx(c.codes.size()), dx_size(c.codes.size());
  std::int64_t all_outputs = 0;
  const Doubles x = c.x_hat();
  for (std::size_t i = 0; i < c.products.size(); ++i) {
    const Product& p = c.products[i];
    const Doubles w = c.w_hat(p);
    const auto exact = reference::linear_backward(x, w, p.dy, c.rows, p.outputs, c.inputs);
    const auto size = reference::linear_backward(magnitudes(x), magnitudes(w), magnitudes(p.dy),
                                                 c.rows, p.outputs, c.inputs);
    dx = sum_of(dx, exact.dx);
    dx_size = sum_of(dx_size, size.dx);
    all_outputs += p.outputs;
    CAPTURE(i);
    if (p.wants_dw) {
      CHECK(worst_ratio(actual.dw[i], sum_of(exact.dw, p.dw),
                        sum_of(scaled_magnitudes(product_bound(1, c.rows), size.dw),
                               scaled_magnitudes(kSumRounding, p.dw))) <= 1);
    } else {
      CHECK(actual.dw[i] == as_floats(p.dw));
    }
  }
  if (!c.wants_dx) {
    CHECK(actual.dx == Floats(c.codes.size(), 77));
    return;
  }
  const int rounded = c.groups == 0 ? 1 : 2;
  CHECK(worst_ratio(actual.dx, dx,
                    scaled_magnitudes(product_bound(rounded, all_outputs), dx_size)) <= 1);
}

TEST_CASE("bf16 gradients of a BitLinear are those of the dense products at its operands") {
  for (const bool with_cublaslt : {true, false}) {
    for (const std::int64_t groups : {0, 1, 2}) {
      for (const std::int64_t rows : {1, 5, 70}) {
        CAPTURE(with_cublaslt, groups, rows);
        const auto gpu = new_backend(with_cublaslt);
        const BitCase one(rows, 128, groups, {12}), three(rows, 128, groups, {68, 4, 20});
        check_close(one, run(*gpu, one));
        check_close(three, run(*gpu, three));
      }
    }
  }
}

TEST_CASE("bf16 gradients of a BitLinear are the same from dy in bf16, and dx is rounded once") {
  for (const bool with_cublaslt : {true, false}) {
    for (const std::int64_t groups : {0, 2}) {
      BitCase c(21, 128, groups, {68, 4, 20});
      for (Product& p : c.products) {
        const Floats rounded = test::rounded_to_bf16(as_floats(p.dy));
        p.dy.assign(rounded.begin(), rounded.end());
      }
      const auto gpu = new_backend(with_cublaslt);
      const BitGradients expected = run(*gpu, c);
      for (const DType dx : {DType::f32, DType::bf16}) {
        CAPTURE(with_cublaslt, groups, dx);
        c.dx_type = dx;
        c.products[0].dy_type = c.products[2].dy_type = DType::bf16;
        const BitGradients actual = run(*gpu, c);
        CHECK(actual.dx == test::rounded_to(dx, expected.dx));
        CHECK(actual.dw == expected.dw);
      }
    }
  }
}

TEST_CASE("bf16 gradients of a BitLinear that are not wanted are left alone") {
  const auto gpu = new_backend(true);
  BitCase c(9, 64, 0, {12, 20, 8});
  c.products[1].wants_dw = false;
  check_close(c, run(*gpu, c));
  c.wants_dx = false;
  check_close(c, run(*gpu, c));
  for (Product& p : c.products) p.wants_dw = false;
  check_close(c, run(*gpu, c));
  c.wants_dx = true;
  check_close(c, run(*gpu, c));
}

TEST_CASE("bf16 gradients of a BitLinear have the same bits in every execution") {
  const BitCase c(21, 64, 0, {12, 20});
  const auto gpu = new_backend(false);
  const BitGradients first = run(*gpu, c);
  test::in_each_execution([&] {
    emulator::config().device.has_cublaslt = false;
    const auto again = make_cuda_backend();
    const BitGradients actual = run(*again, c);
    CHECK(actual.dx == first.dx);
    CHECK(actual.dw == first.dw);
  });
}

TEST_CASE("a token whose act_scale is NaN makes bf16 dw NaN and leaves dx alone") {
  BitCase c(20, 64, 0, {12});
  c.act_scale[7] = std::numeric_limits<float>::quiet_NaN();
  std::fill_n(c.codes.begin() + 7 * 64, 64, std::int8_t{0});
  const auto gpu = new_backend(true);
  const BitGradients actual = run(*gpu, c);
  for (const float v : actual.dx) REQUIRE(std::isfinite(v));
  for (const float v : actual.dw[0]) REQUIRE(std::isnan(v));
}

}  // namespace
}  // namespace bitnet
