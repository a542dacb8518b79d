// SPDX-License-Identifier: MIT
// Gated activations on the GPU: against the CPU's plain twin within bounds of rounding; fused with a
// norm and a quantisation against those that they stand for, with equal bits.
#include <cmath>
#include <memory>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "cuda/cuda_backend.h"
#include "tests/cuda/row_tensors.h"

namespace bitnet {
namespace {

using test::check_equal;
using test::distance;
using test::Floats;
using test::floats_of;
using test::kEps;
using test::kRounding;
using test::Operands;
using test::Quantized;
using test::random_floats;

TEST_CASE("the GPU's gated activations of bf16 are those of the exact floats, rounded once") {
  const auto activation = GENERATE(Activation::silu, Activation::relu2, Activation::gelu);
  const bool gated = GENERATE(true, false);
  const Shape shape = GENERATE(Shape{6, 67}, Shape{5, 200});
  CAPTURE(int(activation), gated, shape.to_string());
  const auto gpu = make_cuda_backend();
  const Operands make{*gpu, shape};
  const auto numbers = [&](std::uint32_t seed) {
    return test::rounded_to_bf16(random_floats(seed, shape.elements()));
  };
  const Tensor gain = make.gain(16);
  const NormArguments norm{NormKind::rms, gain, kEps};
  struct Result {
    std::vector<std::int8_t> codes;
    Floats act_scale, stats, dgain;
    std::vector<Floats> acts;
  };
  const auto run = [&](DType type) {
    const Tensor gate = make.of(numbers(13), type), up = make.of(numbers(14), type),
                 dy = make.of(numbers(15), type);
    const ConstTensorView ups = gated ? up.view() : ConstTensorView();
    Tensor y = make.empty(type), dgate = make.empty(type), dup = make.empty(type),
           norm_dgate = make.empty(type), norm_dup = make.empty(type), dgain = make.gain(17);
    const auto wanted = [&](Tensor& t) { return gated ? t.view() : TensorView(); };
    Quantized q(make);
    gpu->gated_activation(activation, gate, ups, y);
    gpu->gated_activation_backward(activation, gate, ups, dy, dgate, wanted(dup));
    gpu->gated_activation_quantize(activation, gate, ups, norm, q.codes, q.act_scale, q.stats);
    gpu->gated_activation_norm_backward(activation, gate, ups, norm, q.stats, dy, norm_dgate,
                                        wanted(norm_dup), dgain);
    Result r{test::to_host<std::int8_t>(*gpu, q.codes),
             floats_of(*gpu, q.act_scale),
             floats_of(*gpu, q.stats),
             floats_of(*gpu, dgain),
             {}};
    for (const Tensor* t : {&y, &dgate, &dup, &norm_dgate, &norm_dup}) {
      r.acts.push_back(test::rounded_to_bf16(test::act_floats(*gpu, *t)));
    }
    return r;
  };
  const Result exact = run(DType::f32), result = run(DType::bf16);
  CHECK(result.codes == exact.codes);
  CHECK(result.act_scale == exact.act_scale);
  CHECK(result.stats == exact.stats);
  CHECK(result.dgain == exact.dgain);
  CHECK(result.acts == exact.acts);
}

TEST_CASE("the GPU's gated activations and their gradients are the CPU's within rounding") {
  const auto activation = GENERATE(Activation::silu, Activation::relu2, Activation::gelu);
  const bool gated = GENERATE(true, false);
  const Shape shape = GENERATE(Shape{0, 64}, Shape{3, 67}, Shape{20, 128});
  CAPTURE(int(activation), gated, shape.to_string());
  Floats gate = random_floats(10, shape.elements());
  for (float& v : gate) v *= 3;
  if (gate.size() > 3) gate[0] = 0, gate[1] = -80, gate[2] = 80;
  struct Result {
    Floats y, dgate, dup;
  };
  const auto run = [&](Backend& be) {
    const Operands make{be, shape};
    const Tensor gates = make.of(gate), up = make.random(11), dy = make.random(12);
    const ConstTensorView ups = gated ? up.view() : ConstTensorView();
    Tensor y = make.empty(), dgate = make.empty(), dup = make.empty();
    be.gated_activation(activation, gates, ups, y);
    be.gated_activation_backward(activation, gates, ups, dy, dgate,
                                 gated ? dup.view() : TensorView());
    return Result{floats_of(be, y), floats_of(be, dgate), floats_of(be, dup)};
  };
  const Result expected = run(*make_cpu_backend(1, "scalar")), result = run(*make_cuda_backend());
  if (activation == Activation::relu2) {
    CHECK(result.y == expected.y);
    CHECK(result.dgate == expected.dgate);
    CHECK(result.dup == expected.dup);
    return;
  }
  // The factor of gate, at most 1, is within 5 roundings of the exact one on either side, the slope
  // within 8 of 1 + |gate|.
  const Floats up = gated ? random_floats(11, shape.elements()) : Floats(gate.size(), 1.0f),
               dy = random_floats(12, shape.elements());
  std::vector<double> y_bound, dgate_bound, dup_bound;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double x = std::abs(double(gate[i])), u = std::abs(double(up[i])),
                 d = std::abs(double(dy[i]));
    y_bound.push_back(12 * kRounding * x * u);
    dgate_bound.push_back(20 * kRounding * (1 + x) * u * d);
    dup_bound.push_back(12 * kRounding * x * d);
  }
  CHECK(distance(result.y, expected.y, y_bound) <= 1);
  CHECK(distance(result.dgate, expected.dgate, dgate_bound) <= 1);
  if (gated) CHECK(distance(result.dup, expected.dup, dup_bound) <= 1);
}

// Fused forward and backward operations against their parts, on one backend.
void check_fused(Backend& be, Activation activation, NormKind kind, const Shape& shape,
                 bool gated) {
  const Operands make{be, shape};
  const Tensor gate = make.random(13), up = make.random(14), dy = make.random(15),
               gain = make.gain(16);
  const ConstTensorView ups = gated ? up.view() : ConstTensorView();
  Tensor h = make.empty(), y = make.empty(), dh = make.empty();
  be.gated_activation(activation, gate, ups, h);
  {
    Quantized parts(make), fused(make);
    be.quantize_activations(h, parts.codes, parts.act_scale);
    be.gated_activation_quantize(activation, gate, ups, {}, fused.codes, fused.act_scale, {});
    check_equal(be, fused, parts);
  }
  for (const bool with_gain : {false, true}) {
    const NormArguments norm{kind, with_gain ? gain.view() : ConstTensorView(), kEps};
    const auto wanted = [](Tensor& t, bool is) { return is ? t.view() : TensorView(); };
    Quantized parts(make), fused(make);
    be.norm(kind, h, norm.gain, norm.eps, y, parts.stats);
    be.quantize_activations(y, parts.codes, parts.act_scale);
    be.gated_activation_quantize(activation, gate, ups, norm, fused.codes, fused.act_scale,
                                 fused.stats);
    check_equal(be, fused, parts);

    Tensor dgate = make.empty(), dup = make.empty(), fused_dgate = make.empty(),
           fused_dup = make.empty(), dgain = make.gain(17), fused_dgain = make.gain(17);
    be.norm_backward(kind, h, norm.gain, parts.stats, dy, dh, false, wanted(dgain, with_gain));
    be.gated_activation_backward(activation, gate, ups, dh, dgate, wanted(dup, gated));
    be.gated_activation_norm_backward(activation, gate, ups, norm, parts.stats, dy, fused_dgate,
                                      wanted(fused_dup, gated), wanted(fused_dgain, with_gain));
    CHECK(floats_of(be, fused_dgate) == floats_of(be, dgate));
    CHECK(floats_of(be, fused_dup) == floats_of(be, dup));
    CHECK(floats_of(be, fused_dgain) == floats_of(be, dgain));
  }
}

TEST_CASE(
    "the GPU's gated activations fused with a norm and a quantisation give what all give in turn") {
  const auto activation = GENERATE(Activation::silu, Activation::relu2, Activation::gelu);
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const Shape shape = GENERATE(Shape{0, 64}, Shape{1, 200}, Shape{6, 67}, Shape{3, 1536});
  const bool gated = GENERATE(true, false);
  CAPTURE(int(activation), int(kind), shape.to_string(), gated);
  check_fused(*make_cuda_backend(), activation, kind, shape, gated);
}

TEST_CASE("on the GPU gradients may take the place of dy and of up") {
  const auto activation = GENERATE(Activation::silu, Activation::relu2, Activation::gelu);
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const auto gpu = make_cuda_backend();
  const Operands make{*gpu, {9, GENERATE(200, 67)}};
  const Tensor gate = make.random(20), up = make.random(21), dy = make.random(22),
               gain = make.gain(23);
  Tensor h = make.empty(), stats = make.stats(), y = make.empty();
  gpu->gated_activation(activation, gate, up, h);
  gpu->norm(kind, h, gain, kEps, y, stats);
  const auto check = [&](const auto& gradients) {
    Tensor dgate = make.empty(), dup = make.empty(), in_dy = make.random(22),
           in_up = make.random(21);
    gradients(up, dy, dgate, dup);
    gradients(in_up, in_dy, in_dy, in_up);
    CHECK(floats_of(*gpu, in_dy) == floats_of(*gpu, dgate));
    CHECK(floats_of(*gpu, in_up) == floats_of(*gpu, dup));
  };
  check([&](ConstTensorView ups, ConstTensorView from, TensorView dgate, TensorView dup) {
    gpu->gated_activation_backward(activation, gate, ups, from, dgate, dup);
  });
  check([&](ConstTensorView ups, ConstTensorView from, TensorView dgate, TensorView dup) {
    Tensor dgain = make.gain(24);
    gpu->gated_activation_norm_backward(activation, gate, ups, {kind, gain, kEps}, stats, from,
                                        dgate, dup, dgain);
  });
}

}  // namespace
}  // namespace bitnet
