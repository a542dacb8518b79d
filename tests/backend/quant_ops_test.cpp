// SPDX-License-Identifier: MIT
// The quantisation operations against core/quant: equal bits.
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/quant/ternary.h"
#include "tests/support/backends.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

std::vector<float> random_floats(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.05f, 1.0f);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (auto& v : x) v = normal(random);
  return x;
}

// A matrix quantised by core/quant.
struct Reference {
  std::vector<std::int8_t> codes;
  std::vector<std::uint8_t> packed;
  std::vector<float> scales;
};

Reference quantize(const WeightQuantizer& q, const std::vector<float>& w, std::int64_t rows,
                   std::int64_t columns) {
  Reference r;
  r.codes.resize(w.size());
  r.packed.resize(w.size() / 4);
  r.scales.resize(static_cast<std::size_t>(scale_count(q, rows, columns)));
  quantize_weights(q, w, rows, columns, r.codes, r.scales);
  pack_codes(r.codes, rows, columns, r.packed);
  return r;
}

Shape scale_shape(const WeightQuantizer& q, std::int64_t rows, std::int64_t columns) {
  return q.group_size == 0 ? Shape{1} : Shape{rows, columns / q.group_size};
}

TEST_CASE("quantize_weights has the bits of core/quant for every kind, measure and group") {
  const auto backend = test::generated_backend().make();
  INFO(backend->detail());
  const auto kind = GENERATE(LinearKind::b158, LinearKind::b1);
  const auto measure = GENERATE(ScaleMeasure::absmean, ScaleMeasure::absmedian);
  for (const std::int64_t group : {0, 64, 128, 640}) {
    for (const std::int64_t rows : {4, 36}) {
      const std::int64_t columns = 640;  // 36 * 640 elements: five whole tiles and a partial one
      const WeightQuantizer q{kind, measure, group};
      const auto w = random_floats(rows * columns, 21);
      const Reference expected = quantize(q, w, rows, columns);
      Tensor packed = backend->make_tensor(DType::u8, {rows / 4, columns});
      Tensor scale = backend->make_tensor(DType::f32, scale_shape(q, rows, columns));
      Tensor weights = test::to_device(*backend, {rows, columns}, w);
      backend->quantize_weights(q, weights, packed, scale, {});
      CHECK(test::to_host<std::uint8_t>(*backend, packed) == expected.packed);
      CHECK(test::to_host<float>(*backend, scale) == expected.scales);

      backend->dequantize_weights(packed, scale, weights);
      const std::size_t per_scale = w.size() / expected.scales.size();
      std::vector<float> dequantized(w.size());
      for (std::size_t k = 0; k < w.size(); ++k) {
        dequantized[k] = expected.scales[k / per_scale] * static_cast<float>(expected.codes[k]);
      }
      CHECK(test::to_host<float>(*backend, weights) == dequantized);
    }
  }
}

TEST_CASE("groups longer than a tile of sums keep the order of core/quant") {
  const auto backend = test::generated_backend().make();
  const WeightQuantizer q{LinearKind::b1, ScaleMeasure::absmean, 4160};
  const auto w = random_floats(4 * 8320, 22);
  const Reference expected = quantize(q, w, 4, 8320);
  Tensor packed = backend->make_tensor(DType::u8, {1, 8320});
  Tensor scale = backend->make_tensor(DType::f32, {4, 2});
  backend->quantize_weights(q, test::to_device(*backend, {4, 8320}, w), packed, scale, {});
  CHECK(test::to_host<std::uint8_t>(*backend, packed) == expected.packed);
  CHECK(test::to_host<float>(*backend, scale) == expected.scales);
}

TEST_CASE("quantize_activations has the bits of quantize_token for each row") {
  const auto backend = test::generated_backend().make();
  INFO(backend->detail());
  for (const std::int64_t columns : {64, 70, 320}) {
    const std::int64_t rows = 700;  // several tasks
    auto x = random_floats(rows * columns, 23);
    x[5] = std::numeric_limits<float>::infinity();
    for (std::size_t k = 0; k < 64; ++k) x[static_cast<std::size_t>(columns) + k] = 0;
    Tensor codes = backend->make_tensor(DType::i8, {rows, columns});
    Tensor scale = backend->make_tensor(DType::f32, {rows});
    Tensor back = test::to_device(*backend, {rows, columns}, x);
    backend->quantize_activations(back, codes, scale);
    std::vector<std::int8_t> expected(x.size());
    std::vector<float> expected_scale(static_cast<std::size_t>(rows));
    const auto width = static_cast<std::size_t>(columns);
    for (std::size_t t = 0; t < expected_scale.size(); ++t) {
      expected_scale[t] = quantize_token(std::span<const float>(x).subspan(t * width, width),
                                         std::span(expected).subspan(t * width, width));
    }
    CHECK(test::to_host<std::int8_t>(*backend, codes) == expected);
    CHECK(test::to_host<float>(*backend, scale) == expected_scale);

    backend->dequantize_activations(codes, scale, back);
    const auto restored = test::floats_of(*backend, back);
    for (std::size_t k = width; k < x.size(); ++k) {
      REQUIRE(restored[k] == expected_scale[k / width] * static_cast<float>(expected[k]));
    }
    CHECK(std::isnan(restored[0]));  // infinity * 0: the bad row is not hidden
  }
}

TEST_CASE("a row that is not finite makes its own outputs NaN, and no others") {
  const auto backend = test::generated_backend().make();
  const Reference w = quantize({}, random_floats(64 * 64, 31), 64, 64);
  const Tensor packed = test::to_device(*backend, {16, 64}, w.packed);
  auto x = random_floats(3 * 64, 3);
  x[70] = std::numeric_limits<float>::quiet_NaN();
  Tensor codes = backend->make_tensor(DType::i8, {3, 64});
  Tensor scale = backend->make_tensor(DType::f32, {3});
  Tensor y = backend->make_tensor(DType::f32, {3, 64});
  backend->quantize_activations(test::to_device(*backend, {3, 64}, x), codes, scale);
  const Tensor weight_scale = test::to_device(*backend, {1}, w.scales);
  backend->bit_linear(codes, scale, {packed, weight_scale, y});
  const auto outputs = test::floats_of(*backend, y);
  for (std::size_t k = 0; k < 192; ++k) CHECK(std::isnan(outputs[k]) == (k / 64 == 1));
}

TEST_CASE("blend mixes by its amount, in place too") {
  const auto backend = test::generated_backend().make();
  const auto x = random_floats(40000, 1), quantized = random_floats(40000, 2);
  std::vector<float> expected(x.size());
  for (std::size_t k = 0; k < x.size(); ++k) expected[k] = x[k] + 0.3f * (quantized[k] - x[k]);
  Tensor out = test::to_device(*backend, {40000}, quantized);
  backend->blend(test::to_device(*backend, {40000}, x), out, 0.3f, out);
  CHECK(test::to_host<float>(*backend, out) == expected);
}

TEST_CASE("codes are counted over all tiles") {
  const auto backend = test::generated_backend().make();
  const Reference a = quantize({}, random_floats(1024 * 320, 3), 1024, 320);
  const Tensor pa = test::to_device(*backend, {256, 320}, a.packed);
  const CodeCounts counts = backend->count_codes(pa), expected = count_codes(a.packed);
  CHECK(counts.minus == expected.minus);
  CHECK(counts.zero == expected.zero);
  CHECK(counts.plus == expected.plus);
  CHECK(counts.total() == 1024 * 320);
}

TEST_CASE("quantize_weights counts the codes that it changed") {
  const auto backend = test::generated_backend().make();
  const auto kind = GENERATE(LinearKind::b158, LinearKind::b1);
  const std::int64_t rows = 64, columns = 1344;  // rows longer than a block of repacking
  for (const std::int64_t group : {0, 192}) {
    const WeightQuantizer q{kind, ScaleMeasure::absmean, group};
    const auto w = random_floats(rows * columns, 3), later = random_floats(rows * columns, 4);
    const Reference a = quantize(q, w, rows, columns), b = quantize(q, later, rows, columns);
    Tensor packed = test::to_device(*backend, {rows / 4, columns}, a.packed);
    Tensor scale = backend->make_tensor(DType::f32, scale_shape(q, rows, columns));
    const Tensor weights = test::to_device(*backend, {rows, columns}, later);
    Tensor flips = backend->make_tensor(DType::i32, {1});
    backend->quantize_weights(q, weights, packed, scale, flips);
    CHECK(test::to_host<std::int32_t>(*backend, flips)[0] == count_flips(a.packed, b.packed));
    CHECK(test::to_host<std::uint8_t>(*backend, packed) == b.packed);
    backend->quantize_weights(q, weights, packed, scale, flips);
    CHECK(test::to_host<std::int32_t>(*backend, flips)[0] == 0);
  }
}

TEST_CASE("quantize_weights and count_codes of many matrices are those of each") {
  const auto backend = test::generated_backend().make();
  const auto kind = GENERATE(LinearKind::b158, LinearKind::b1);
  const auto measure = GENERATE(ScaleMeasure::absmean, ScaleMeasure::absmedian);
  const std::int64_t group = GENERATE(0, 64);
  const WeightQuantizer q{kind, measure, group};
  std::vector<Tensor> w, packed, scales, flips;
  std::vector<Reference> expected;
  std::vector<WeightQuantization> matrices;
  for (std::uint32_t i = 0; i < 3; ++i) {
    const std::int64_t rows = 8 + 4 * i, columns = 64 + std::int64_t{128} * i;
    const auto values = random_floats(rows * columns, 20 + i);
    expected.push_back(quantize(q, values, rows, columns));
    w.push_back(test::to_device(*backend, {rows, columns}, values));
    packed.push_back(backend->make_tensor(DType::u8, {rows / 4, columns}));
    scales.push_back(backend->make_tensor(DType::f32, scale_shape(q, rows, columns)));
    flips.push_back(backend->make_tensor(DType::i32, {1}));
  }
  for (std::size_t i = 0; i < w.size(); ++i)
    matrices.push_back({w[i], packed[i], scales[i], flips[i]});
  backend->quantize_weights(q, matrices);
  const std::vector<ConstTensorView> all(packed.begin(), packed.end());
  std::vector<CodeCounts> counts(all.size());
  backend->count_codes(all, counts);
  for (std::size_t i = 0; i < w.size(); ++i) {
    CHECK(test::to_host<std::uint8_t>(*backend, packed[i]) == expected[i].packed);
    CHECK(test::floats_of(*backend, scales[i]) == expected[i].scales);
    const std::vector<std::uint8_t> zeros(expected[i].packed.size());
    CHECK(test::to_host<std::int32_t>(*backend, flips[i])[0] ==
          count_flips(zeros, expected[i].packed));
    const CodeCounts c = count_codes(expected[i].packed);
    CHECK(counts[i].minus == c.minus);
    CHECK(counts[i].zero == c.zero);
    CHECK(counts[i].plus == c.plus);
    CHECK(counts[i].invalid == 0);
  }
  CHECK_THROWS_AS(backend->count_codes(all, std::span(counts).first(1)), ContractError);
}

TEST_CASE("quantisation operations refuse shapes that do not fit") {
  const auto backend = test::default_backend().make();
  const auto make = [&](DType dtype, Shape shape) { return backend->make_tensor(dtype, shape); };
  Tensor w = make(DType::f32, {8, 64}), packed = make(DType::u8, {2, 64}),
         one = make(DType::f32, {1});
  Tensor x = make(DType::f32, {3, 64}), codes = make(DType::i8, {3, 64}),
         scale = make(DType::f32, {3});
  Tensor y = make(DType::f32, {3, 8});
  const auto check = [](const auto& call) { CHECK_THROWS_AS(call(), ContractError); };
  check([&] { backend->quantize_weights({LinearKind::float32}, w, packed, one, {}); });
  check([&] { backend->quantize_weights({}, x, packed, one, {}); });
  check([&] { backend->quantize_weights({}, w, packed, scale, {}); });
  check([&] {
    backend->quantize_weights({LinearKind::b158, ScaleMeasure::absmean, 64}, w, packed, one, {});
  });
  check([&] { backend->dequantize_weights(packed, one, x); });
  check([&] {
    backend->dequantize_weights(make(DType::u8, {2, 60}), one, make(DType::f32, {8, 60}));
  });
  check([&] { backend->quantize_activations(x, make(DType::i8, {3, 63}), scale); });
  check([&] { backend->quantize_activations(x, codes, one); });
  check([&] { backend->bit_linear(codes, one, {packed, one, y}); });
  check([&] { backend->bit_linear(codes, scale, {packed, one, x}); });
  check([&] { backend->bit_linear(x, scale, {packed, one, y}); });
  check([&] {
    const Tensor wrong = make(DType::f32, {1, 8});
    backend->bit_linear(codes, scale, {packed, wrong, y});
  });
  check([&] {
    const Tensor wrong = make(DType::f32, {8});
    backend->bit_linear(codes, scale, {packed, wrong, y});
  });
  check([&] {
    Tensor no_rows = make(DType::u8, {0, 64}), nothing = make(DType::f32, {3, 0});
    backend->bit_linear(codes, scale, {no_rows, one, nothing});
  });
  check([&] {
    Tensor no_columns = make(DType::u8, {2, 0}), no_codes = make(DType::i8, {3, 0});
    backend->bit_linear(no_codes, scale, {no_columns, one, y});
  });
  check([&] {
    const std::span<const BitLinearGradient> none;
    backend->bit_linear_backward(codes, scale, none, GradientPrecision::int8, x);
  });
  check([&] { backend->blend(x, y, 0.5f, x); });
}

}  // namespace
}  // namespace bitnet
