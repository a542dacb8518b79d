// SPDX-License-Identifier: MIT
// Linear products and quantisers of every backend against the double reference. Bounds: as
// TestBackend::product_bound(); each further rounding of an operand or of the result adds one of
// the sum's.
#include "core/quant/ternary.h"
#include "tests/reference/ops_backward.h"
#include "tests/reference/quantizers.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/tensors.h"

using namespace bitnet;
using namespace bitnet::test;
using reference::Doubles;

namespace {

struct ProductShape {
  std::int64_t rows, outputs, inputs;
};

std::vector<ProductShape> product_shapes() {
  return {{1, 4, 64}, {5, 12, 192}, {33, 68, 128}, {16, 64, 320}};
}

Doubles add(Doubles a, const Doubles& b) { return sum_of(std::move(a), b); }

// What a quantised product reads, on the device and dequantised.
struct Operands {
  Tensor codes, act_scale, packed, weight_scale;
  Doubles x_hat, w_hat;
};

Operands make_operands(Backend& be, const WeightQuantizer& q, const ProductShape& s) {
  Operands o;
  const auto x = random_numbers(1, s.rows * s.inputs),
             w = random_numbers(2, s.outputs * s.inputs, 0.02, 0.003);
  o.codes = be.make_tensor(DType::i8, {s.rows, s.inputs});
  o.act_scale = be.make_tensor(DType::f32, {s.rows});
  be.quantize_activations(to_device(be, {s.rows, s.inputs}, x), o.codes, o.act_scale);
  o.packed = be.make_tensor(DType::u8, {s.outputs / 4, s.inputs});
  const std::int64_t groups = q.group_size == 0 ? 1 : s.inputs / q.group_size;
  o.weight_scale =
      be.make_tensor(DType::f32, q.group_size == 0 ? Shape{1} : Shape{s.outputs, groups});
  be.quantize_weights(q, to_device(be, {s.outputs, s.inputs}, w), o.packed, o.weight_scale, {});

  const auto codes = to_host<std::int8_t>(be, o.codes);
  const auto act_scale = floats_of(be, o.act_scale), weight_scale = floats_of(be, o.weight_scale);
  std::vector<std::int8_t> trits(w.size());
  REQUIRE(unpack_codes(to_host<std::uint8_t>(be, o.packed), s.outputs, s.inputs, trits));
  for (std::size_t i = 0; i < x.size(); ++i)
    o.x_hat.push_back(double(act_scale[i / std::size_t(s.inputs)]) * codes[i]);
  const std::size_t group = q.group_size == 0 ? w.size() : std::size_t(q.group_size);
  for (std::size_t i = 0; i < w.size(); ++i)
    o.w_hat.push_back(double(weight_scale[i / group]) * trits[i]);

  // The operands are the papers' own: each scale is within an fp32 rounding or two of the
  // reference's, and codes are equal.
  reference::TieDistance ties;
  const auto x_expected = reference::quantize_activations(x, s.inputs, ties);
  const auto w_expected = reference::quantize_weights(q, w);
  CHECK(worst_ratio(o.x_hat, x_expected, scaled_magnitudes(4 * kRounding, x_expected)) <= 1);
  CHECK(worst_ratio(o.w_hat, w_expected, scaled_magnitudes(4 * kRounding, w_expected)) <= 1);
  return o;
}

std::vector<WeightQuantizer> weight_quantizers() {
  return {{LinearKind::b158, ScaleMeasure::absmean, 0},
          {LinearKind::b158, ScaleMeasure::absmedian, 0},
          {LinearKind::b158, ScaleMeasure::absmean, 64},
          {LinearKind::b1, ScaleMeasure::absmean, 0},
          {LinearKind::b1, ScaleMeasure::absmean, 64}};
}

}  // namespace

TEST_CASE("linear and its gradients are within rounding of the reference on every backend",
          "[reference]") {
  for (const TestBackend& b : test_backends()) {
    for (const ProductShape& s : product_shapes()) {
      INFO(b.name << " rows " << s.rows << " outputs " << s.outputs << " inputs " << s.inputs);
      const auto backend = b.make();
      Backend& be = *backend;
      const auto x = random_numbers(1, s.rows * s.inputs),
                 w = random_numbers(2, s.outputs * s.inputs);
      const auto dy = random_numbers(3, s.rows * s.outputs);
      const auto dx_before = random_numbers(4, s.rows * s.inputs),
                 dw_before = random_numbers(5, s.outputs * s.inputs);
      const Tensor tx = to_device(be, {s.rows, s.inputs}, x),
                   tw = to_device(be, {s.outputs, s.inputs}, w),
                   tdy = to_device(be, {s.rows, s.outputs}, dy);

      Tensor y = be.make_tensor(DType::f32, {s.rows, s.outputs});
      be.linear(tx, tw, y);
      const auto y_abs =
          reference::linear(magnitudes(x), magnitudes(w), s.rows, s.outputs, s.inputs);
      CHECK(worst_ratio(floats_of(be, y), reference::linear(x, w, s.rows, s.outputs, s.inputs),
                        scaled_magnitudes(b.product_bound(s.inputs), y_abs)) <= 1);

      const auto exact = reference::linear_backward(x, w, dy, s.rows, s.outputs, s.inputs);
      const auto size = reference::linear_backward(magnitudes(x), magnitudes(w), magnitudes(dy),
                                                   s.rows, s.outputs, s.inputs);
      const Doubles none(dx_before.size(), 0.0);
      for (const bool accumulate : {false, true}) {
        Tensor dx = to_device(be, {s.rows, s.inputs}, dx_before),
               dw = to_device(be, {s.outputs, s.inputs}, dw_before);
        be.linear_backward(tx, tw, tdy, dx, accumulate, dw);
        const Doubles& start = accumulate ? dx_before : none;
        CHECK(worst_ratio(floats_of(be, dx), add(exact.dx, start),
                          add(scaled_magnitudes(b.product_bound(s.outputs + 1), size.dx),
                              scaled_magnitudes(b.product_bound(s.outputs + 1, 0), start))) <= 1);
        CHECK(worst_ratio(floats_of(be, dw), add(exact.dw, dw_before),
                          add(scaled_magnitudes(b.product_bound(s.rows + 1), size.dw),
                              scaled_magnitudes(b.product_bound(s.rows + 1, 0), dw_before))) <= 1);
      }
    }
  }
}

TEST_CASE("bit_linear is the product of the dequantised operands on every backend", "[reference]") {
  for (const TestBackend& b : test_backends()) {
    for (const WeightQuantizer& q : weight_quantizers()) {
      for (const ProductShape& s : product_shapes()) {
        INFO(b.name << " " << to_string(q.kind) << " group " << q.group_size << " rows " << s.rows
                    << " outputs " << s.outputs << " inputs " << s.inputs);
        const auto backend = b.make();
        const Operands o = make_operands(*backend, q, s);
        Tensor y = backend->make_tensor(DType::f32, {s.rows, s.outputs});
        backend->bit_linear(o.codes, o.act_scale, {o.packed, o.weight_scale, y});
        const auto expected = reference::linear(o.x_hat, o.w_hat, s.rows, s.outputs, s.inputs);
        if (q.group_size == 0) {
          // The integer sum is exact (below 2^24), so only the product of scales and the product
          // with it round; the double reference itself rounds at 1e-16 of the sum of magnitudes.
          const auto size = reference::linear(magnitudes(o.x_hat), magnitudes(o.w_hat), s.rows,
                                              s.outputs, s.inputs);
          CHECK(worst_ratio(floats_of(*backend, y), expected,
                            sum_of(scaled_magnitudes(2.01 * kRounding, expected),
                                   scaled_magnitudes(1e-14, size))) <= 1);
        } else {
          // One fma a group, then the product with act_scale.
          const auto size = reference::linear(magnitudes(o.x_hat), magnitudes(o.w_hat), s.rows,
                                              s.outputs, s.inputs);
          const double groups = double(s.inputs / q.group_size);
          CHECK(worst_ratio(floats_of(*backend, y), expected,
                            scaled_magnitudes((groups + 2) * kRounding, size)) <= 1);
        }
      }
    }
  }
}

TEST_CASE("bit_linear_backward is the dense gradient at the dequantised operands on every backend",
          "[reference]") {
  for (const TestBackend& b : test_backends()) {
    for (const WeightQuantizer& q : weight_quantizers()) {
      for (const ProductShape& s : product_shapes()) {
        INFO(b.name << " " << to_string(q.kind) << " group " << q.group_size << " rows " << s.rows
                    << " outputs " << s.outputs << " inputs " << s.inputs);
        const auto backend = b.make();
        Backend& be = *backend;
        const Operands o = make_operands(be, q, s);
        const auto dy = random_numbers(3, s.rows * s.outputs);
        const auto dx_before = random_numbers(4, s.rows * s.inputs),
                   dw_before = random_numbers(5, s.outputs * s.inputs);
        Tensor dx = to_device(be, {s.rows, s.inputs}, dx_before),
               dw = to_device(be, {s.outputs, s.inputs}, dw_before);
        const Tensor tdy = to_device(be, {s.rows, s.outputs}, dy);
        be.bit_linear_backward(o.codes, o.act_scale, {o.packed, o.weight_scale, tdy, dw},
                               b.gradients, dx);

        const auto exact =
            reference::linear_backward(o.x_hat, o.w_hat, dy, s.rows, s.outputs, s.inputs);
        const auto size = reference::linear_backward(magnitudes(o.x_hat), magnitudes(o.w_hat),
                                                     magnitudes(dy), s.rows, s.outputs, s.inputs);
        // One rounding more than the dense product's: that of the dequantised operand. Of operands
        // that are rounded to products only dy is: codes and trits are exact, a single scale goes
        // to dy. A group's scale stays with the trits, which are rounded in dx.
        CHECK(
            worst_ratio(floats_of(be, dx), exact.dx,
                        scaled_magnitudes(b.product_bound(s.outputs + 2, q.group_size == 0 ? 1 : 2),
                                          size.dx)) <= 1);
        CHECK(worst_ratio(floats_of(be, dw), add(exact.dw, dw_before),
                          add(scaled_magnitudes(b.product_bound(s.rows + 2, 1), size.dw),
                              scaled_magnitudes(b.product_bound(s.rows + 2, 0), dw_before))) <= 1);
      }
    }
  }
}
