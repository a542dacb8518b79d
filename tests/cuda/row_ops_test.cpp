// SPDX-License-Identifier: MIT
// Norms and quantisation on the GPU: norms against the CPU's plain twin within bounds of rounding,
// quantisation of given numbers with its bits; and what all row operations keep to.
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "cuda/cuda_backend.h"
#include "tests/cuda/row_tensors.h"
#include "tests/cuda_emulator/executions.h"

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
using test::same;

struct NormResult {
  Floats y, stats, dx, dgain;
};

NormResult norm_and_back(Backend& be, NormKind kind, const Shape& shape, bool with_gain,
                         bool accumulate) {
  const Operands make{be, shape};
  const Tensor x = make.of(random_floats(1, shape.elements(), 0.5)), dy = make.random(2),
               gain = make.gain(3);
  const ConstTensorView gains = with_gain ? gain.view() : ConstTensorView();
  Tensor y = make.empty(), stats = make.stats(), dx = make.random(4), dgain = make.gain(5);
  be.norm(kind, x, gains, kEps, y, stats);
  be.norm_backward(kind, x, gains, stats, dy, dx, accumulate,
                   with_gain ? dgain.view() : TensorView());
  return {floats_of(be, y), floats_of(be, stats), floats_of(be, dx), floats_of(be, dgain)};
}

TEST_CASE("the GPU's norms and their gradients are the CPU's within rounding") {
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const Shape shape =
      GENERATE(Shape{0, 64}, Shape{1, 200}, Shape{70, 256}, Shape{9, 67}, Shape{3, 1536});
  const bool with_gain = GENERATE(false, true), accumulate = GENERATE(false, true);
  CAPTURE(int(kind), shape.to_string(), with_gain, accumulate);
  const auto cpu = make_cpu_backend(1, "scalar");
  const NormResult expected = norm_and_back(*cpu, kind, shape, with_gain, accumulate);
  NormResult result;
  {
    const auto gpu = make_cuda_backend();
    result = norm_and_back(*gpu, kind, shape, with_gain, accumulate);
  }
  // Each of both sums of n terms is within n + 4 roundings of the sum of magnitudes. For x the mean
  // (0.5) and the deviation (1) are of one size, so that normalized numbers are off by 2 (2 n + 8)
  // roundings of |x_hat| + 1 at most; the mean products are below 2 in magnitude, and a gain below 5.
  const double width = double(shape[1]), each = 2 * (2 * width + 8) * kRounding;
  const auto bound_of = [](const Floats& x, double relative, double absolute) {
    std::vector<double> bound;
    for (const float v : x) bound.push_back(relative * std::abs(double(v)) + absolute);
    return bound;
  };
  CHECK(distance(result.y, expected.y, bound_of(expected.y, each, 5 * each)) <= 1);
  CHECK(distance(result.stats, expected.stats, bound_of(expected.stats, each, each)) <= 1);
  CHECK(distance(result.dx, expected.dx, bound_of(expected.dx, 3 * each, 15 * each)) <= 1);
  // Every row adds |dy| <= 5 times the error of x_hat, and the sum has its own roundings.
  const double rows = double(shape[0]);
  CHECK(distance(result.dgain, expected.dgain,
                 bound_of(expected.dgain, each, rows * 5 * (5 * each + 5 * rows * kRounding))) <=
        1);
}

TEST_CASE("the GPU's quantisation of activations has the bits of quantize_token") {
  const Shape shape = GENERATE(Shape{0, 64}, Shape{1, 1}, Shape{7, 70}, Shape{5, 320});
  CAPTURE(shape.to_string());
  Floats x = random_floats(6, shape.elements());
  if (x.size() > 70) x[5] = std::numeric_limits<float>::infinity();
  const auto width = static_cast<std::size_t>(shape[1]);
  std::vector<std::int8_t> expected(x.size());
  Floats scales, restored;
  for (std::size_t at = 0; at < x.size(); at += width) {
    scales.push_back(
        quantize_token(std::span(x).subspan(at, width), std::span(expected).subspan(at, width)));
    for (std::size_t i = at; i < at + width; ++i) {
      restored.push_back(scales.back() * static_cast<float>(expected[i]));
    }
  }
  test::in_each_execution([&] {
    const auto gpu = make_cuda_backend();
    const Operands make{*gpu, shape};
    Quantized q(make);
    Tensor back = make.of(x);
    gpu->quantize_activations(back, q.codes, q.act_scale);
    CHECK(test::to_host<std::int8_t>(*gpu, q.codes) == expected);
    CHECK(same(floats_of(*gpu, q.act_scale), scales));
    gpu->dequantize_activations(q.codes, q.act_scale, back);
    CHECK(same(floats_of(*gpu, back), restored));
  });
}

TEST_CASE("the GPU quantises a bf16 matrix, and its norm, as its exact floats") {
  const Shape shape = GENERATE(Shape{5, 80}, Shape{4, 33});
  const auto gpu = make_cuda_backend();
  const Operands make{*gpu, shape};
  const Tensor halves = make.of(random_floats(7, shape.elements()), DType::bf16),
               floats = make.of(test::act_floats(*gpu, halves)), gain = make.gain(8);
  Quantized a(make), b(make);
  gpu->quantize_activations(halves, a.codes, a.act_scale);
  gpu->quantize_activations(floats, b.codes, b.act_scale);
  check_equal(*gpu, a, b);
  for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
    gpu->norm_quantize({kind, gain, kEps}, halves, a.codes, a.act_scale, a.stats);
    gpu->norm_quantize({kind, gain, kEps}, floats, b.codes, b.act_scale, b.stats);
    check_equal(*gpu, a, b);
  }
}

TEST_CASE("the GPU's norms of and into bf16 are those of the exact floats, rounded once") {
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const Shape shape = GENERATE(Shape{70, 256}, Shape{9, 67}, Shape{3, 1536});
  CAPTURE(int(kind), shape.to_string());
  const auto gpu = make_cuda_backend();
  const Operands make{*gpu, shape};
  const Floats x = test::rounded_to_bf16(random_floats(1, shape.elements(), 0.5)),
               dy = test::rounded_to_bf16(random_floats(2, shape.elements()));
  const Tensor gain = make.gain(3);
  struct Types {
    DType x, dy, dx;  // y as dy
    bool accumulate;
  };
  const auto run = [&](const Types& types) {
    const Tensor xs = make.of(x, types.x), dys = make.of(dy, types.dy);
    Tensor y = make.empty(types.dy), stats = make.stats(),
           dx = make.of(random_floats(4, shape.elements()), types.dx), dgain = make.gain(5);
    gpu->norm(kind, xs, gain, kEps, y, stats);
    gpu->norm_backward(kind, xs, gain, stats, dys, dx, types.accumulate, dgain);
    return NormResult{test::act_floats(*gpu, y), floats_of(*gpu, stats), test::act_floats(*gpu, dx),
                      floats_of(*gpu, dgain)};
  };
  constexpr DType kTypes[] = {DType::f32, DType::bf16};
  for (const bool accumulate : {false, true}) {
    const NormResult exact = run({DType::f32, DType::f32, DType::f32, accumulate});
    for (const DType x_type : kTypes) {
      for (const DType dy_type : kTypes) {
        for (const DType dx_type : kTypes) {
          if (accumulate && dx_type == DType::bf16) continue;
          const NormResult result = run({x_type, dy_type, dx_type, accumulate});
          CHECK(result.y == test::rounded_to(dy_type, exact.y));
          CHECK(result.stats == exact.stats);
          CHECK(result.dx == test::rounded_to(dx_type, exact.dx));
          CHECK(result.dgain == exact.dgain);
        }
      }
    }
  }
}

TEST_CASE("the GPU's norm_quantize is norm, then quantize_activations") {
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const Shape shape = GENERATE(Shape{0, 64}, Shape{1, 200}, Shape{6, 67}, Shape{3, 1536});
  test::in_each_execution([&] {
    const auto gpu = make_cuda_backend();
    const Operands make{*gpu, shape};
    const Tensor x = make.random(8), gain = make.gain(9);
    for (const bool with_gain : {false, true}) {
      const ConstTensorView gains = with_gain ? gain.view() : ConstTensorView();
      Quantized parts(make), fused(make);
      Tensor y = make.empty();
      gpu->norm(kind, x, gains, kEps, y, parts.stats);
      gpu->quantize_activations(y, parts.codes, parts.act_scale);
      gpu->norm_quantize({kind, gains, kEps}, x, fused.codes, fused.act_scale, fused.stats);
      check_equal(*gpu, fused, parts);
    }
  });
}

TEST_CASE("a row on the GPU has the same bits alone and among others") {
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const std::int64_t width = GENERATE(64, 67, 520);
  const auto gpu = make_cuda_backend();
  const Operands all{*gpu, {7, width}}, one{*gpu, {1, width}};
  const Tensor x = all.random(18), gain = all.gain(19);
  Quantized together(all), alone(one);
  Tensor y = all.empty(), y_alone = one.empty();
  gpu->norm_quantize({kind, gain, kEps}, x, together.codes, together.act_scale, together.stats);
  gpu->norm(kind, x, gain, kEps, y, together.stats);
  for (std::int64_t row = 0; row < 7; ++row) {
    const ConstTensorView in = x.view().rows(row, 1);
    gpu->norm_quantize({kind, gain, kEps}, in, alone.codes, alone.act_scale, alone.stats);
    gpu->norm(kind, in, gain, kEps, y_alone, alone.stats);
    CHECK(floats_of(*gpu, y_alone) == floats_of(*gpu, y.view().rows(row, 1)));
    CHECK(floats_of(*gpu, alone.act_scale) ==
          floats_of(*gpu, together.act_scale.view().rows(row, 1)));
    CHECK(test::to_host<std::int8_t>(*gpu, alone.codes) ==
          test::to_host<std::int8_t>(*gpu, together.codes.view().rows(row, 1)));
  }
}

TEST_CASE("a row on the GPU that is not finite has codes of 0 and a scale that is not") {
  const float odd =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
               -std::numeric_limits<float>::infinity());
  const auto kind = GENERATE(NormKind::rms, NormKind::layer);
  const std::int64_t width = 200, bad = 2;
  const auto gpu = make_cuda_backend();
  const Operands make{*gpu, {5, width}};
  Floats values = random_floats(25, 5 * width);
  const Tensor clean = make.of(values), up = make.random(26);
  values[static_cast<std::size_t>(bad * width + 197)] = odd;
  const Tensor x = make.of(values);
  const auto check = [&](const auto& operation) {
    Quantized result(make), expected(make);
    operation(x, result);
    operation(clean, expected);
    for (std::int64_t row = 0; row < 5; ++row) {
      const auto codes = test::to_host<std::int8_t>(*gpu, result.codes.view().rows(row, 1));
      const float scale = floats_of(*gpu, result.act_scale)[std::size_t(row)];
      if (row == bad) {
        CHECK(!std::isfinite(scale));
        CHECK(codes == std::vector<std::int8_t>(codes.size(), 0));
      } else {
        CHECK(scale == floats_of(*gpu, expected.act_scale)[std::size_t(row)]);
        CHECK(codes == test::to_host<std::int8_t>(*gpu, expected.codes.view().rows(row, 1)));
      }
    }
  };
  const NormArguments norm{kind, {}, kEps};
  check([&](ConstTensorView input, Quantized& q) {
    gpu->norm_quantize(norm, input, q.codes, q.act_scale, q.stats);
  });
  for (const Activation activation : {Activation::silu, Activation::relu2, Activation::gelu}) {
    for (const bool with_norm : {false, true}) {
      check([&](ConstTensorView input, Quantized& q) {
        gpu->gated_activation_quantize(activation, up, input, norm, q.codes, q.act_scale,
                                       with_norm ? q.stats.view() : TensorView());
      });
    }
  }
}

TEST_CASE("the GPU's row operations refuse shapes that do not fit") {
  const auto gpu = make_cuda_backend();
  const Operands make{*gpu, {3, 64}}, other{*gpu, {3, 32}};
  const Tensor x = make.random(27), gain = other.gain(28);
  Tensor y = make.empty(), small = other.empty(), stats = make.stats();
  Quantized q(make), wrong(other);
  CHECK_THROWS_AS(gpu->norm(NormKind::rms, x, gain, kEps, y, stats), ContractError);
  CHECK_THROWS_AS(gpu->norm(NormKind::rms, x, {}, kEps, small, stats), ContractError);
  CHECK_THROWS_AS(gpu->norm(NormKind::rms, x, {}, kEps, y, y), ContractError);
  CHECK_THROWS_AS(gpu->norm_backward(NormKind::rms, x, {}, stats, small, y, false, {}),
                  ContractError);
  CHECK_THROWS_AS(gpu->norm_backward(NormKind::rms, x, {}, stats, x, y, false, small),
                  ContractError);
  CHECK_THROWS_AS(gpu->quantize_activations(x, wrong.codes, q.act_scale), ContractError);
  CHECK_THROWS_AS(gpu->quantize_activations(q.codes, q.codes, q.act_scale), ContractError);
  CHECK_THROWS_AS(gpu->dequantize_activations(wrong.codes, q.act_scale, y), ContractError);
  CHECK_THROWS_AS(gpu->norm_quantize({}, x, q.codes, stats, stats), ContractError);
  const auto silu = Activation::silu;
  CHECK_THROWS_AS(gpu->gated_activation(silu, x, small, y), ContractError);
  CHECK_THROWS_AS(gpu->gated_activation_backward(silu, x, {}, x, y, y), ContractError);
  CHECK_THROWS_AS(gpu->gated_activation_backward(silu, x, x, small, y, y), ContractError);
  CHECK_THROWS_AS(
      gpu->gated_activation_quantize(silu, x, {}, {}, wrong.codes, q.act_scale, q.stats),
      ContractError);
  CHECK_THROWS_AS(gpu->gated_activation_norm_backward(silu, x, x, {}, stats, x, y, {}, {}),
                  ContractError);
  Tensor half = make.empty(DType::bf16);
  CHECK_THROWS_AS(gpu->norm(NormKind::rms, q.codes, {}, kEps, y, stats), ContractError);
  CHECK_THROWS_AS(gpu->norm_backward(NormKind::rms, x, {}, stats, half, half, true, {}),
                  ContractError);
  CHECK_THROWS_AS(gpu->gated_activation(silu, half, x, half), ContractError);
  CHECK_THROWS_AS(gpu->gated_activation(silu, x, x, half), ContractError);
  CHECK_THROWS_AS(gpu->gated_activation_backward(silu, half, {}, half, y, {}), ContractError);
  CHECK_THROWS_AS(gpu->gated_activation_quantize(silu, x, half, {}, q.codes, q.act_scale, {}),
                  ContractError);
  CHECK_THROWS_AS(gpu->gated_activation_norm_backward(silu, half, {}, {}, stats, x, half, {}, {}),
                  ContractError);
}

}  // namespace
}  // namespace bitnet
