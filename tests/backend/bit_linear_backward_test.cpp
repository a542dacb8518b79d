// SPDX-License-Identifier: MIT
// The int8 gradients of integer products: against their definition written out, bit for bit, and
// against the exact ones, within what the rounding of dy can do.
#include <cmath>
#include <limits>
#include <vector>

#include "core/cpu/gradient_kernels.h"
#include "core/quant/ternary.h"
#include "tests/reference/ops_backward.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

using namespace bitnet;
using namespace bitnet::test;
using reference::Doubles;

namespace {

using Floats = std::vector<float>;
constexpr std::int64_t kTile = cpu::kGradientTile;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <typename T>
T& at(std::vector<T>& v, std::int64_t i) {
  return v[static_cast<std::size_t>(i)];
}
template <typename T>
const T& at(const std::vector<T>& v, std::int64_t i) {
  return v[static_cast<std::size_t>(i)];
}

Floats random_floats(std::uint32_t seed, std::int64_t count, double deviation = 1) {
  const auto x = random_numbers(seed, count, deviation);
  return {x.begin(), x.end()};
}

struct Weights {
  std::int64_t outputs = 0, groups = 0;  // groups 0: a single scale
  std::vector<std::int8_t> trits;        // [N, K]
  Floats scale;                          // [1] or [N, groups]
  Floats dy;                             // [rows, N]
  Floats dw;                             // [N, K], before
  bool wants_dw = true;
};

// A call's operands: the products of one quantised input.
struct Case {
  std::int64_t rows = 0, inputs = 0;
  std::vector<std::int8_t> codes;  // [rows, K]
  Floats act_scale;                // [rows]
  std::vector<Weights> products;
};

Case make_case(std::int64_t rows, std::int64_t inputs, const std::vector<std::int64_t>& outputs,
               bool binary = false, std::int64_t groups = 0) {
  Case c;
  c.rows = rows;
  c.inputs = inputs;
  for (const double v : random_numbers(1, rows * inputs, 40)) {
    c.codes.push_back(static_cast<std::int8_t>(std::fmin(std::fmax(v, -127.0), 127.0)));
  }
  c.act_scale = random_floats(2, rows, 0.01);
  for (auto& s : c.act_scale) s = std::fabs(s) + 1e-3f;
  std::uint32_t seed = 3;
  for (const std::int64_t n : outputs) {
    Weights w;
    w.outputs = n;
    w.groups = groups;
    for (const double v : random_numbers(seed++, n * inputs)) {
      const int trit = (v > 0.5) - (v < -0.5);
      w.trits.push_back(static_cast<std::int8_t>(binary ? (v > 0 ? 1 : -1) : trit));
    }
    w.scale = random_floats(seed++, groups == 0 ? 1 : n * groups, 0.02);
    for (auto& s : w.scale) s = std::fabs(s) + 1e-3f;
    w.dy = random_floats(seed++, rows * n, 1e-4);
    w.dw = random_floats(seed++, n * inputs, 1e-3);
    c.products.push_back(std::move(w));
  }
  return c;
}

struct Results {
  Floats dx;
  std::vector<Floats> dw;
};

Results run(Backend& be, const Case& c, GradientPrecision precision) {
  const Tensor codes = to_device(be, {c.rows, c.inputs}, c.codes),
               act_scale = to_device(be, {c.rows}, c.act_scale);
  Tensor dx = to_device(be, {c.rows, c.inputs}, random_floats(50, c.rows * c.inputs));
  std::vector<Tensor> kept;
  kept.reserve(4 * c.products.size());
  std::vector<BitLinearGradient> gradients;
  std::vector<TensorView> dw;
  const auto keep = [&](Tensor t) -> TensorView {
    kept.push_back(std::move(t));
    return kept.back();
  };
  for (const Weights& w : c.products) {
    std::vector<std::uint8_t> packed(w.trits.size() / 4);
    pack_codes(w.trits, w.outputs, c.inputs, packed);
    const Shape scale_shape = w.groups == 0 ? Shape{1} : Shape{w.outputs, w.groups};
    dw.push_back(keep(to_device(be, {w.outputs, c.inputs}, w.dw)));
    gradients.push_back({keep(to_device(be, {w.outputs / 4, c.inputs}, packed)),
                         keep(to_device(be, scale_shape, w.scale)),
                         keep(to_device(be, {c.rows, w.outputs}, w.dy)),
                         w.wants_dw ? dw.back() : TensorView()});
  }
  be.bit_linear_backward(codes, act_scale, gradients, precision, dx);
  Results r{floats_of(be, dx), {}};
  for (const TensorView& t : dw) r.dw.push_back(floats_of(be, t));
  return r;
}

// --- the definition ---

struct Rounded {
  float scale = 0;
  std::vector<int> codes;
};

Rounded round_values(const Floats& values) {
  float absmax = 0;
  bool finite = true;
  for (const float v : values) {
    finite = finite && std::isfinite(v);
    absmax = std::fmax(absmax, std::fabs(v));
  }
  Rounded r;
  if (!finite) return {kNaN, std::vector<int>(values.size(), 0)};
  absmax = std::fmax(absmax, cpu::kGradientEps);
  r.scale = absmax / 127.0f;
  const float inv_scale = 127.0f / absmax;
  for (const float v : values) r.codes.push_back(static_cast<int>(std::nearbyint(v * inv_scale)));
  return r;
}

void define_dx(const Case& c, const Weights& w, bool first, Floats& dx) {
  for (std::int64_t t = 0; t < c.rows; ++t) {
    const auto begin = w.dy.begin() + t * w.outputs;
    const Rounded row = round_values({begin, begin + w.outputs});
    const float scale = row.scale * w.scale[0];
    std::vector<int> sums(static_cast<std::size_t>(c.inputs));
    for (std::int64_t n = 0; n < w.outputs; ++n) {
      for (std::int64_t k = 0; k < c.inputs; ++k) {
        at(sums, k) += at(row.codes, n) * at(w.trits, n * c.inputs + k);
      }
    }
    for (std::int64_t k = 0; k < c.inputs; ++k) {
      const auto sum = static_cast<float>(at(sums, k));
      float& out = at(dx, t * c.inputs + k);
      out = first ? scale * sum : std::fma(scale, sum, out);
    }
  }
}

// The scale of column n in the tile of `first`, and its codes.
Rounded round_column(const Case& c, const Weights& w, std::int64_t n, std::int64_t first) {
  Floats column;
  for (std::int64_t t = first; t < std::min(first + kTile, c.rows); ++t) {
    column.push_back(at(w.dy, t * w.outputs + n) * at(c.act_scale, t));
  }
  return round_values(column);
}

void define_dw(const Case& c, const Weights& w, Floats& dw) {
  for (std::int64_t n = 0; n < w.outputs; ++n) {
    for (std::int64_t first = 0; first < c.rows; first += kTile) {
      const Rounded column = round_column(c, w, n, first);
      std::vector<int> sums(static_cast<std::size_t>(c.inputs));
      for (std::int64_t i = 0; i < std::int64_t(column.codes.size()); ++i) {
        for (std::int64_t k = 0; k < c.inputs; ++k) {
          at(sums, k) += at(column.codes, i) * at(c.codes, (first + i) * c.inputs + k);
        }
      }
      for (std::int64_t k = 0; k < c.inputs; ++k) {
        float& out = at(dw, n * c.inputs + k);
        out = std::fma(column.scale, static_cast<float>(at(sums, k)), out);
      }
    }
  }
}

Results define(const Case& c) {
  Results r{Floats(std::size_t(c.rows * c.inputs)), {}};
  bool first = true;
  for (const Weights& w : c.products) {
    define_dx(c, w, first, r.dx);
    first = false;
    r.dw.push_back(w.dw);
    if (w.wants_dw) define_dw(c, w, r.dw.back());
  }
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

void check_definition(const Case& c) {
  const Results expected = define(c);
  for (const TestBackend& b : test_backends()) {
    INFO(b.name);
    const auto backend = b.make();
    const Results actual = run(*backend, c, GradientPrecision::int8);
    CHECK(same(actual.dx, expected.dx));
    for (std::size_t i = 0; i < expected.dw.size(); ++i) {
      INFO("product " << i);
      CHECK(same(actual.dw[i], expected.dw[i]));
    }
  }
}

}  // namespace

TEST_CASE("int8 gradients are the integer products of dy rounded once by rows, once by columns",
          "[reference]") {
  SECTION("rows around each bound") {
    for (const bool binary : {false, true}) {
      for (const std::int64_t rows : {1, 5, 33, 255, 256, 300}) {
        INFO("rows " << rows << ", binary " << binary);
        check_definition(make_case(rows, 64, {12}, binary));
        check_definition(make_case(rows, 192, {68, 4, 20}, binary));
      }
    }
  }
  SECTION("more outputs than a panel holds") { check_definition(make_case(50, 128, {1036})); }
  SECTION("three tiles of tokens") { check_definition(make_case(2 * kTile + 90, 64, {68, 12})); }
  SECTION("the lowest code") {
    Case c = make_case(300, 64, {68});
    for (std::size_t i = 0; i < c.codes.size(); i += 3) c.codes[i] = -128;
    check_definition(c);
  }
  SECTION("dw of one product only") {
    Case c = make_case(70, 128, {68, 12, 20});
    c.products[0].wants_dw = c.products[2].wants_dw = false;
    check_definition(c);
  }
}

TEST_CASE("int8 gradients carry what is not finite in dy to its token's dx and its column's dw",
          "[reference]") {
  for (const float odd : {kNaN, kInfinity, -kInfinity}) {
    INFO("odd value " << odd);
    Case c = make_case(300, 64, {68, 12});
    Weights& w = c.products[0];
    at(w.dy, 20 * w.outputs + 7) = odd;
    check_definition(c);
    const auto backend = default_backend().make();
    const Results r = run(*backend, c, GradientPrecision::int8);
    for (std::int64_t k = 0; k < c.inputs; ++k) {
      CHECK(std::isnan(at(r.dx, 20 * c.inputs + k)));
      CHECK(std::isnan(at(r.dw[0], 7 * c.inputs + k)));
    }
  }
}

TEST_CASE("a token whose act_scale is NaN makes dw NaN and leaves dx alone", "[reference]") {
  Case c = make_case(300, 64, {68, 12});
  at(c.act_scale, 20) = kNaN;
  check_definition(c);
  const TestBackend b = default_backend();
  const auto backend = b.make();
  for (const auto precision : {GradientPrecision::int8, b.gradients}) {
    const Results r = run(*backend, c, precision);
    for (const float v : r.dx) REQUIRE(std::isfinite(v));
    for (const Floats& dw : r.dw) {
      for (const float v : dw) REQUIRE(std::isnan(v));
    }
  }
}

TEST_CASE("a gradient of any magnitude is rounded alike", "[reference]") {
  Case c = make_case(40, 64, {68});
  c.products[0].dw.assign(c.products[0].dw.size(), 0);
  const auto backend = default_backend().make();
  const Results r = run(*backend, c, GradientPrecision::int8);
  const float tiny = 0x1p-60f;
  for (auto& v : c.products[0].dy) v *= tiny;
  const Results small = run(*backend, c, GradientPrecision::int8);
  for (std::size_t i = 0; i < r.dx.size(); ++i) REQUIRE(small.dx[i] == r.dx[i] * tiny);
  for (std::size_t i = 0; i < r.dw[0].size(); ++i) REQUIRE(small.dw[0][i] == r.dw[0][i] * tiny);

  c.products[0].dy.assign(c.products[0].dy.size(), 0);
  const Results none = run(*backend, c, GradientPrecision::int8);
  CHECK(none.dx == Floats(none.dx.size(), 0));
  CHECK(none.dw[0] == Floats(none.dw[0].size(), 0));
}

namespace {

double relative_error(const Floats& actual, const Doubles& exact) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    error += (actual[i] - exact[i]) * (actual[i] - exact[i]);
    size += exact[i] * exact[i];
  }
  return std::sqrt(error / size);
}

// Half a step of each rounded element, and the fp32 roundings of scales and of quotients near 127:
// 127.5 codes are off by at most 0.5 + 127.5 * 4 u.
double step_bound(const Rounded& r) { return double(r.scale) * (0.5 + 600 * kRounding); }

}  // namespace

TEST_CASE("int8 gradients differ from the exact ones by half a step of dy's rounding at most",
          "[reference]") {
  const Case c = make_case(300, 128, {256});
  const Weights& w = c.products[0];
  Doubles x_hat, w_hat;
  for (std::int64_t i = 0; i < c.rows * c.inputs; ++i) {
    x_hat.push_back(double(at(c.act_scale, i / c.inputs)) * at(c.codes, i));
  }
  for (const std::int8_t trit : w.trits) w_hat.push_back(double(w.scale[0]) * trit);
  const auto exact = reference::linear_backward(x_hat, w_hat, {w.dy.begin(), w.dy.end()}, c.rows,
                                                w.outputs, c.inputs);
  // The sum is a few fma of numbers no larger than the sum of magnitudes: 16 u cover them.
  Doubles dx_bound(x_hat.size()), dw_bound(w_hat.size());
  for (std::int64_t t = 0; t < c.rows; ++t) {
    const auto begin = w.dy.begin() + t * w.outputs;
    const Rounded row = round_values({begin, begin + w.outputs});
    for (std::int64_t n = 0; n < w.outputs; ++n) {
      const double off = step_bound(row) + 16 * kRounding * std::fabs(*(begin + n));
      for (std::int64_t k = 0; k < c.inputs; ++k) {
        at(dx_bound, t * c.inputs + k) += off * std::fabs(at(w_hat, n * c.inputs + k));
      }
    }
  }
  for (std::int64_t n = 0; n < w.outputs; ++n) {
    for (std::int64_t t = 0; t < c.rows; ++t) {
      const Rounded column = round_column(c, w, n, t / kTile * kTile);
      const double folded = double(at(w.dy, t * w.outputs + n)) * at(c.act_scale, t);
      const double off = step_bound(column) + 16 * kRounding * std::fabs(folded);
      for (std::int64_t k = 0; k < c.inputs; ++k) {
        at(dw_bound, n * c.inputs + k) += off * std::abs(at(c.codes, t * c.inputs + k));
      }
    }
  }
  Case from_zero = c;
  from_zero.products[0].dw.assign(w.dw.size(), 0);
  const auto backend = default_backend().make();
  const Results r = run(*backend, from_zero, GradientPrecision::int8);
  CHECK(worst_ratio(r.dx, exact.dx, dx_bound) <= 1);
  CHECK(worst_ratio(r.dw[0], exact.dw, dw_bound) <= 1);
  // Of normal numbers the largest of 256 is near 3 deviations, so that a step is 3 / 127 of one, and
  // its uniform error 1 / sqrt(12) of that: 0.7 %.
  CHECK(relative_error(r.dx, exact.dx) <= 0.015);
  CHECK(relative_error(r.dw[0], exact.dw) <= 0.015);
}

TEST_CASE("with grouped weight scales dx is not rounded to int8, and dw is", "[reference]") {
  const Case c = make_case(70, 128, {68, 12}, false, 2);
  for (const TestBackend& b : test_backends()) {
    INFO(b.name);
    const auto backend = b.make();
    const Results integer = run(*backend, c, GradientPrecision::int8),
                  dense = run(*backend, c, b.gradients);
    CHECK(integer.dx == dense.dx);
    for (std::size_t i = 0; i < c.products.size(); ++i) {
      Floats dw = c.products[i].dw;
      define_dw(c, c.products[i], dw);
      CHECK(integer.dw[i] == dw);
    }
  }
}

TEST_CASE("of products with single and with grouped scales, the latter's dx is added in floats",
          "[reference]") {
  const std::int64_t rows = 70, inputs = 128;
  Case c = make_case(rows, inputs, {68, 12});
  Case grouped = make_case(rows, inputs, {20}, false, 2);
  c.products.insert(c.products.begin() + 1, grouped.products[0]);
  Doubles dx(std::size_t(rows * inputs)), size = dx;  // of the single scales'
  for (const std::size_t i : {0, 2}) {
    Case one = c;
    one.products = {c.products[i]};
    const Results r = define(one);
    dx = sum_of(dx, {r.dx.begin(), r.dx.end()});
    size = sum_of(size, magnitudes({r.dx.begin(), r.dx.end()}));
  }
  const Weights& w = c.products[1];
  Doubles w_hat;
  for (std::int64_t i = 0; i < w.outputs * inputs; ++i) {
    w_hat.push_back(double(at(w.scale, i / (inputs / w.groups))) * at(w.trits, i));
  }
  const Doubles dy(w.dy.begin(), w.dy.end()), no_x(dx.size());
  const Doubles dense = reference::linear_backward(no_x, w_hat, dy, rows, w.outputs, inputs).dx;
  const Doubles dense_size =
      reference::linear_backward(no_x, magnitudes(w_hat), magnitudes(dy), rows, w.outputs, inputs)
          .dx;
  std::vector<Floats> dw;
  for (const Weights& each : c.products) {
    dw.push_back(each.dw);
    define_dw(c, each, dw.back());
  }
  for (const TestBackend& b : test_backends()) {
    INFO(b.name);
    const auto backend = b.make();
    const Results actual = run(*backend, c, GradientPrecision::int8);
    // The three are added in some order, and the dense one's weights are rounded once more.
    CHECK(worst_ratio(actual.dx, sum_of(dx, dense),
                      sum_of(scaled_magnitudes(b.product_bound(w.outputs + 4), dense_size),
                             scaled_magnitudes(4 * kRounding, size))) <= 1);
    CHECK(actual.dw == dw);
  }
}

TEST_CASE("either int8 gradient is computed without the other, and of no rows there is none",
          "[reference]") {
  const auto backend = default_backend().make();
  Backend& be = *backend;
  for (const std::int64_t rows : {0, 37}) {
    const Case c = make_case(rows, 64, {12});
    const Weights& w = c.products[0];
    const Results both = run(be, c, GradientPrecision::int8);
    std::vector<std::uint8_t> bytes(w.trits.size() / 4);
    pack_codes(w.trits, w.outputs, c.inputs, bytes);
    const Tensor codes = to_device(be, {rows, 64}, c.codes),
                 act_scale = to_device(be, {rows}, c.act_scale),
                 packed = to_device(be, {3, 64}, bytes), scale = to_device(be, {1}, w.scale),
                 dy = to_device(be, {rows, 12}, w.dy);
    Tensor dx = be.make_tensor(DType::f32, {rows, 64}), dw = to_device(be, {12, 64}, w.dw);
    be.bit_linear_backward(codes, act_scale, {packed, scale, dy, {}}, GradientPrecision::int8, dx);
    be.bit_linear_backward(codes, act_scale, {packed, scale, dy, dw}, GradientPrecision::int8, {});
    CHECK(floats_of(be, dx) == both.dx);
    CHECK(floats_of(be, dw) == both.dw[0]);
    if (rows == 0) CHECK(both.dw[0] == w.dw);
  }
}

TEST_CASE("a backend refuses the gradient precision that it has not", "[reference]") {
  const TestBackend b = default_backend();
  const auto backend = b.make();
  const Case c = make_case(5, 64, {12});
  CHECK_THROWS_AS(run(*backend, c, b.refused_gradients), ContractError);
  CHECK_NOTHROW(run(*backend, c, b.gradients));
}
