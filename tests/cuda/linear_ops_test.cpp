// SPDX-License-Identifier: MIT
// Products of floats and the bf16 gradients of a BitLinear, with cuBLASLt and without. Bounds: an
// operand's rounding to bf16 is within 2^-8 of it; a sum of n products in fp32, in any order and by
// any rounding, within (n + 1) 2^-23 sum |a b|.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "core/quant/ternary.h"
#include "cuda/cuda_backend.h"
#include "tests/cuda/act_tensors.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/reference/ops_backward.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using test::floats_of;
using test::magnitudes;
using test::random_numbers;
using test::scaled_magnitudes;
using test::sum_of;
using test::to_device;
using test::worst_ratio;
using Doubles = std::vector<double>;
using Floats = std::vector<float>;

constexpr double kNarrow = 0x1p-8;
constexpr double kSumRounding = 0x1p-23;

// Of sum |a b|, for n products of operands of which `rounded` are rounded to bf16.
double product_bound(int rounded, std::int64_t n) {
  return rounded * kNarrow * (1 + kNarrow) + static_cast<double>(n + 2) * kSumRounding;
}

// A device of its own, with cuBLASLt or without.
std::unique_ptr<Backend> new_backend(bool with_cublaslt) {
  emulator::reset();
  emulator::config().device.has_cublaslt = with_cublaslt;
  return make_cuda_backend();
}

Doubles integers(std::uint32_t seed, std::int64_t count) {
  Doubles x = random_numbers(seed, count, 3);
  for (double& v : x) v = std::nearbyint(v);
  return x;
}

struct Case {
  std::int64_t rows, outputs, inputs;
  Doubles x, w, dy, dx, dw;  // dx and dw: before

  // Numbers whose products have exact sums, or any.
  Case(std::int64_t r, std::int64_t n, std::int64_t k, bool exact)
      : rows(r), outputs(n), inputs(k) {
    const auto numbers = [&](std::uint32_t seed, std::int64_t count) {
      return exact ? integers(seed, count) : random_numbers(seed, count);
    };
    x = numbers(1, r * k);
    w = numbers(2, n * k);
    dy = numbers(3, r * n);
    dx = numbers(4, r * k);
    dw = numbers(5, n * k);
  }
  // Of numbers of bf16.
  void narrow() {
    for (Doubles* part : {&x, &w, &dy, &dx, &dw}) {
      const Floats rounded = test::rounded_to_bf16(Floats(part->begin(), part->end()));
      part->assign(rounded.begin(), rounded.end());
    }
  }
  void describe() const {
    UNSCOPED_INFO("rows " << rows << " outputs " << outputs << " inputs " << inputs);
  }
};

std::vector<Case> cases(bool exact) {
  std::vector<Case> all;
  for (const auto& [rows, outputs, inputs] : {std::array<std::int64_t, 3>{1, 1, 1},
                                              {1, 4, 64},
                                              {5, 3, 7},
                                              {33, 68, 128},
                                              {71, 257, 66}}) {
    all.emplace_back(rows, outputs, inputs, exact);
  }
  return all;
}

Doubles product(const Case& c) { return reference::linear(c.x, c.w, c.rows, c.outputs, c.inputs); }

// The types of what may be bf16.
struct Types {
  DType x = DType::f32, y = DType::f32, dx = DType::f32;  // dy: as y
};
const std::vector<Types>& all_types() {
  static const std::vector<Types> all = [] {
    std::vector<Types> types;
    for (const DType x : {DType::f32, DType::bf16}) {
      for (const DType y : {DType::f32, DType::bf16}) {
        for (const DType dx : {DType::f32, DType::bf16}) types.push_back({x, y, dx});
      }
    }
    return types;
  }();
  return all;
}

Floats as_floats(const Doubles& x) { return {x.begin(), x.end()}; }

Floats linear(Backend& gpu, const Case& c, const Types& types = {}) {
  Tensor y = gpu.make_tensor(types.y, {c.rows, c.outputs});
  gpu.linear(test::act_to_device(gpu, types.x, {c.rows, c.inputs}, as_floats(c.x)),
             to_device(gpu, {c.outputs, c.inputs}, c.w), y);
  return test::act_floats(gpu, y);
}

struct Wanted {
  bool dx, dw, accumulate_dx;
};
struct Gradients {
  Floats dx, dw;
};

Gradients linear_backward(Backend& gpu, const Case& c, const Wanted& wanted,
                          const Types& types = {}) {
  const Tensor x = test::act_to_device(gpu, types.x, {c.rows, c.inputs}, as_floats(c.x)),
               w = to_device(gpu, {c.outputs, c.inputs}, c.w),
               dy = test::act_to_device(gpu, types.y, {c.rows, c.outputs}, as_floats(c.dy));
  Tensor dx = test::act_to_device(gpu, types.dx, {c.rows, c.inputs}, as_floats(c.dx)),
         dw = to_device(gpu, {c.outputs, c.inputs}, c.dw);
  gpu.linear_backward(x, w, dy, wanted.dx ? dx.view() : TensorView(), wanted.accumulate_dx,
                      wanted.dw ? dw.view() : TensorView());
  return {test::act_floats(gpu, dx), floats_of(gpu, dw)};
}

TEST_CASE("linear on the GPU is exact where bf16 and fp32 are") {
  for (const Case& c : cases(true)) {
    test::in_each_execution([&] {
      c.describe();
      CHECK(linear(*make_cuda_backend(), c) == as_floats(product(c)));
    });
  }
}

TEST_CASE("linear on the GPU is within the rounding of its operands to bf16") {
  for (const Case& c : cases(false)) {
    c.describe();
    const auto gpu = new_backend(true);
    const Doubles size =
        reference::linear(magnitudes(c.x), magnitudes(c.w), c.rows, c.outputs, c.inputs);
    CHECK(worst_ratio(linear(*gpu, c), product(c),
                      scaled_magnitudes(product_bound(2, c.inputs), size)) <= 1);
  }
}

TEST_CASE("a row of linear on the GPU has the same bits alone and in a batch of any size") {
  const auto gpu = new_backend(true);
  const std::int64_t outputs = 1024, inputs = 12;
  const Case one(1, outputs, inputs, false);
  const Floats alone = linear(*gpu, one);
  for (const std::int64_t rows : {2, 65, 2048}) {  // in tiles for few rows, small and large ones
    Case many(rows, outputs, inputs, false);
    std::copy(one.x.begin(), one.x.end(), many.x.end() - inputs);
    const Floats y = linear(*gpu, many);
    CHECK(Floats(y.end() - outputs, y.end()) == alone);
  }
}

TEST_CASE("linear_backward on the GPU is exact where bf16 and fp32 are, wanted or not") {
  for (const Case& c : cases(true)) {
    const auto exact = reference::linear_backward(c.x, c.w, c.dy, c.rows, c.outputs, c.inputs);
    for (const Wanted wanted : {Wanted{true, true, false}, Wanted{true, false, true},
                                Wanted{false, true, false}, Wanted{}}) {
      for (const bool with_cublaslt : {true, false}) {
        c.describe();
        CAPTURE(wanted.dx, wanted.dw, wanted.accumulate_dx, with_cublaslt);
        const auto gpu = new_backend(with_cublaslt);
        const Gradients actual = linear_backward(*gpu, c, wanted);
        const Doubles dx = wanted.accumulate_dx ? sum_of(c.dx, exact.dx) : exact.dx;
        CHECK(actual.dx == as_floats(wanted.dx ? dx : c.dx));
        CHECK(actual.dw == as_floats(wanted.dw ? sum_of(c.dw, exact.dw) : c.dw));
      }
    }
  }
}

TEST_CASE("linear_backward on the GPU is within the rounding of its operands to bf16") {
  for (const bool with_cublaslt : {true, false}) {
    for (const Case& c : cases(false)) {
      c.describe();
      CAPTURE(with_cublaslt);
      const auto exact = reference::linear_backward(c.x, c.w, c.dy, c.rows, c.outputs, c.inputs);
      const auto size = reference::linear_backward(magnitudes(c.x), magnitudes(c.w),
                                                   magnitudes(c.dy), c.rows, c.outputs, c.inputs);
      const auto gpu = new_backend(with_cublaslt);
      const Gradients actual = linear_backward(*gpu, c, {true, true, false});
      CHECK(worst_ratio(actual.dx, exact.dx,
                        scaled_magnitudes(product_bound(2, c.outputs), size.dx)) <= 1);
      CHECK(worst_ratio(actual.dw, sum_of(exact.dw, c.dw),
                        sum_of(scaled_magnitudes(product_bound(2, c.rows), size.dw),
                               scaled_magnitudes(kSumRounding, c.dw))) <= 1);
    }
  }
}

TEST_CASE("linear on the GPU of bf16 is that of the same numbers in f32, rounded once") {
  for (Case c : cases(false)) {
    c.narrow();
    c.describe();
    const auto gpu = new_backend(true);
    const Floats expected = linear(*gpu, c);
    for (const Types& types : all_types()) {
      CAPTURE(types.x, types.y);
      CHECK(linear(*gpu, c, types) == test::rounded_to(types.y, expected));
    }
  }
}

TEST_CASE("linear_backward on the GPU of bf16 is that of the same numbers in f32, rounded once") {
  for (Case c : cases(false)) {
    c.narrow();
    for (const Wanted wanted : {Wanted{true, true, false}, Wanted{true, false, true}}) {
      for (const bool with_cublaslt : {true, false}) {
        const auto gpu = new_backend(with_cublaslt);
        const Gradients expected = linear_backward(*gpu, c, wanted);
        for (const Types& types : all_types()) {
          c.describe();
          CAPTURE(wanted.accumulate_dx, with_cublaslt, types.x, types.y, types.dx);
          const Gradients actual = linear_backward(*gpu, c, wanted, types);
          CHECK(actual.dx == test::rounded_to(types.dx, expected.dx));
          CHECK(actual.dw == expected.dw);
        }
      }
    }
  }
}

TEST_CASE("rows in bf16 that need no padding are operands as they are", "[emulator]") {
  const Case padded(5, 12, 20, true), whole(5, 16, 24, true);
  const auto gpu = new_backend(true);
  const auto launches = [&](const auto& operation) {
    const std::uint64_t before = emulator::statistics().launches;
    operation();
    return emulator::statistics().launches - before;
  };
  const Types bf16{DType::bf16, DType::bf16, DType::bf16};
  // x and w are converted, and a product; or w alone. Of dy and w likewise, with cuBLASLt's product.
  CHECK(launches([&] { linear(*gpu, padded, bf16); }) == 3);
  CHECK(launches([&] { linear(*gpu, whole, bf16); }) == 2);
  CHECK(launches([&] { linear_backward(*gpu, padded, {true, false, false}, bf16); }) == 2);
  CHECK(launches([&] { linear_backward(*gpu, whole, {true, false, false}, bf16); }) == 1);
}

TEST_CASE("gradients come the same way in every execution, and from cuBLASLt where it is",
          "[emulator]") {
  const Case c(37, 12, 20, true);
  const auto exact = reference::linear_backward(c.x, c.w, c.dy, c.rows, c.outputs, c.inputs);
  for (const bool with_cublaslt : {true, false}) {
    test::in_each_execution([&] {
      emulator::config().device.has_cublaslt = with_cublaslt;
      const auto gpu = make_cuda_backend();
      const std::uint64_t before = emulator::statistics().launches;
      const Gradients actual = linear_backward(*gpu, c, {true, true, true});
      CHECK(actual.dx == as_floats(sum_of(c.dx, exact.dx)));
      CHECK(actual.dw == as_floats(sum_of(c.dw, exact.dw)));
      // Three operands are converted; two products.
      CHECK(emulator::statistics().launches - before == (with_cublaslt ? 3 : 5));
    });
  }
}

TEST_CASE("linear products on the GPU of nothing do nothing, and of no inputs give zeros") {
  const auto gpu = new_backend(true);
  const Case none(0, 4, 8, false);
  CHECK(linear(*gpu, none).empty());
  CHECK(linear_backward(*gpu, none, {true, true, false}).dw == as_floats(none.dw));
  const Case empty(2, 3, 0, false);
  CHECK(linear(*gpu, empty) == Floats(6, 0));
  const Case no_outputs(2, 0, 3, false);
  CHECK(linear_backward(*gpu, no_outputs, {true, true, false}).dx == Floats(6, 0));
  CHECK(linear_backward(*gpu, no_outputs, {true, true, true}).dx == as_floats(no_outputs.dx));
}

TEST_CASE("linear on the GPU refuses wrong shapes and types") {
  const auto gpu = new_backend(true);
  const auto f32 = [&](std::int64_t rows, std::int64_t columns) {
    return gpu->make_tensor(DType::f32, {rows, columns});
  };
  Tensor x = f32(2, 8), w = f32(4, 8), y = f32(2, 4), turned = f32(4, 2);
  Tensor halves = gpu->make_tensor(DType::bf16, {4, 8});
  CHECK_THROWS_AS(gpu->linear(x, w, turned), ContractError);
  CHECK_THROWS_AS(gpu->linear(x, turned, y), ContractError);
  CHECK_THROWS_AS(gpu->linear(x, halves, y), ContractError);
  CHECK_THROWS_AS(gpu->linear_backward(x, w, turned, x, false, w), ContractError);
  CHECK_THROWS_AS(gpu->linear_backward(x, w, y, y, false, w), ContractError);
  CHECK_THROWS_AS(gpu->linear_backward(x, w, y, x, false, y), ContractError);
  CHECK_THROWS_AS(gpu->linear_backward(x, halves, y, x, false, w), ContractError);
  CHECK(emulator::last_failure() == "");
}

// --- bf16 gradients of a BitLinear ---

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
