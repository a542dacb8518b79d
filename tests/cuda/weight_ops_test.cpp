// SPDX-License-Identifier: MIT
// Quantised weights on the GPU against core/quant: equal bits.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/base/error.h"
#include "core/quant/ternary.h"
#include "cuda/cuda_backend.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using test::floats_of;
using test::to_device;
using test::to_host;

std::vector<float> random_floats(std::uint32_t seed, std::int64_t count) {
  const std::vector<double> x = test::random_numbers(seed, count, 1.0, 0.05);
  return {x.begin(), x.end()};
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

Tensor make_scales(Backend& gpu, const WeightQuantizer& q, std::int64_t rows,
                   std::int64_t columns) {
  return gpu.make_tensor(DType::f32,
                         q.group_size == 0 ? Shape{1} : Shape{rows, columns / q.group_size});
}

// Quantises over codes that are already there, so that some of them change.
void check_quantize(const WeightQuantizer& q, std::int64_t rows, std::int64_t columns) {
  CAPTURE(int(q.kind), int(q.measure), q.group_size, rows, columns);
  const std::vector<float> w = random_floats(1, rows * columns);
  const Reference before = quantize(q, random_floats(2, rows * columns), rows, columns);
  const Reference expected = quantize(q, w, rows, columns);
  const std::int64_t changes = count_flips(before.packed, expected.packed);
  std::vector<float> dequantized(w.size());
  for (std::size_t k = 0; k < w.size(); ++k) {
    dequantized[k] = expected.scales[k / (w.size() / expected.scales.size())] *
                     static_cast<float>(expected.codes[k]);
  }
  test::in_each_execution([&] {
    const auto gpu = make_cuda_backend();
    Tensor packed = to_device(*gpu, {rows / 4, columns}, before.packed);
    Tensor scales = make_scales(*gpu, q, rows, columns);
    Tensor flips = to_device(*gpu, {1}, std::vector<std::int32_t>{-5});
    const Tensor weights = to_device(*gpu, {rows, columns}, w);
    gpu->quantize_weights(q, weights, packed, scales, flips);
    CHECK(to_host<std::int32_t>(*gpu, flips)[0] == changes);
    CHECK(to_host<std::uint8_t>(*gpu, packed) == expected.packed);
    CHECK(floats_of(*gpu, scales) == expected.scales);
    gpu->quantize_weights(q, weights, packed, scales, flips);
    CHECK(to_host<std::int32_t>(*gpu, flips)[0] == 0);
    gpu->zero(packed);
    gpu->quantize_weights(q, weights, packed, scales, {});
    CHECK(to_host<std::uint8_t>(*gpu, packed) == expected.packed);

    Tensor back = gpu->make_tensor(DType::f32, {rows, columns});
    gpu->dequantize_weights(packed, scales, back);
    CHECK(floats_of(*gpu, back) == dequantized);
  });
}

TEST_CASE("quantize_weights on the GPU has the bits of core/quant for every kind and measure") {
  const auto kind = GENERATE(LinearKind::b158, LinearKind::b1);
  const auto measure = GENERATE(ScaleMeasure::absmean, ScaleMeasure::absmedian);
  const std::int64_t group = GENERATE(0, 64, 192);
  check_quantize({kind, measure, group}, 4, 192);
  if (group == 0) check_quantize({kind, measure, group}, 28, 192);  // two tiles of sums
}

TEST_CASE("groups longer than a tile of sums keep the order of core/quant on the GPU") {
  const auto kind = GENERATE(LinearKind::b158, LinearKind::b1);
  check_quantize({kind, ScaleMeasure::absmean, 4160}, 4, 8320);
}

TEST_CASE("weights that are not finite show in the scale on the GPU and give the code of NaN") {
  const auto kind = GENERATE(LinearKind::b158, LinearKind::b1);
  const auto measure = GENERATE(ScaleMeasure::absmean, ScaleMeasure::absmedian);
  const float bad =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
  const std::int64_t group = GENERATE(0, 64);
  CAPTURE(int(kind), int(measure), bad, group);
  std::vector<float> w = random_floats(3, 4 * 128);
  w[130] = bad;  // of the third group
  const WeightQuantizer q{kind, measure, group};
  const Reference expected = quantize(q, w, 4, 128);
  const auto gpu = make_cuda_backend();
  Tensor packed = gpu->make_tensor(DType::u8, {1, 128}), scales = make_scales(*gpu, q, 4, 128);
  gpu->quantize_weights(q, to_device(*gpu, {4, 128}, w), packed, scales, {});
  CHECK(to_host<std::uint8_t>(*gpu, packed) == expected.packed);
  const std::vector<float> found = floats_of(*gpu, scales);
  for (std::size_t g = 0; g < found.size(); ++g) {
    CHECK((found[g] == expected.scales[g] ||
           (std::isnan(found[g]) && std::isnan(expected.scales[g]))));
  }
}

TEST_CASE("blend on the GPU mixes by its amount, in place too, at any size") {
  const std::int64_t count = GENERATE(0, 1, 3, 4, 1025, 5000);
  const auto x = random_floats(1, count), quantized = random_floats(2, count);
  std::vector<float> expected(x.size());
  for (std::size_t k = 0; k < x.size(); ++k) expected[k] = x[k] + 0.3f * (quantized[k] - x[k]);
  test::in_each_execution([&] {
    const auto gpu = make_cuda_backend();
    Tensor out = to_device(*gpu, {count}, quantized);
    gpu->blend(to_device(*gpu, {count}, x), out, 0.3f, out);
    CHECK(floats_of(*gpu, out) == expected);
  });
}

TEST_CASE("blend on the GPU takes rows that are not aligned") {
  const auto x = random_floats(1, 21), quantized = random_floats(2, 21);
  const auto gpu = make_cuda_backend();
  Tensor a = to_device(*gpu, {3, 7}, x), b = to_device(*gpu, {3, 7}, quantized);
  gpu->blend(a.view().rows(1, 1), b.view().rows(1, 1), 0.5f, a.view().rows(2, 1));
  const std::vector<float> mixed = floats_of(*gpu, a);
  for (std::size_t k = 0; k < 21; ++k) {
    CHECK(mixed[k] == (k < 14 ? x[k] : x[k - 7] + 0.5f * (quantized[k - 7] - x[k - 7])));
  }
}

TEST_CASE("codes are counted on the GPU, the invalid ones too") {
  const auto gpu = make_cuda_backend();
  Reference r = quantize({}, random_floats(4, 64 * 320), 64, 320);
  const auto check_counts = [&] {
    const Tensor packed = to_device(*gpu, {16, 320}, r.packed);
    const CodeCounts counts = gpu->count_codes(packed), expected = count_codes(r.packed);
    CHECK(counts.minus == expected.minus);
    CHECK(counts.zero == expected.zero);
    CHECK(counts.plus == expected.plus);
    CHECK(counts.invalid == expected.invalid);
    CHECK(gpu->valid_codes(packed) == (expected.invalid == 0));
  };
  check_counts();
  r.packed[5000] = 0x31;
  check_counts();
  CHECK(gpu->count_codes(gpu->make_tensor(DType::u8, {0, 64})).total() == 0);
}

TEST_CASE("operations on quantised weights refuse shapes that do not fit on the GPU") {
  const auto gpu = make_cuda_backend();
  const auto make = [&](DType dtype, Shape shape) { return gpu->make_tensor(dtype, shape); };
  Tensor w = make(DType::f32, {8, 64}), packed = make(DType::u8, {2, 64}),
         one = make(DType::f32, {1}), x = make(DType::f32, {3, 64}), three = make(DType::f32, {3});
  const auto check = [](const auto& call) { CHECK_THROWS_AS(call(), ContractError); };
  check([&] { gpu->quantize_weights({LinearKind::float32}, w, packed, one, {}); });
  check([&] { gpu->quantize_weights({}, x, packed, one, {}); });
  check([&] { gpu->quantize_weights({}, w, packed, three, {}); });
  check([&] { gpu->quantize_weights({}, w, packed, one, one); });
  check([&] { gpu->quantize_weights({}, w, packed, one, make(DType::i32, {2})); });
  check([&] {
    const WeightQuantizer groups{LinearKind::b158, ScaleMeasure::absmean, 64};
    gpu->quantize_weights(groups, w, packed, one, {});
  });
  check([&] { gpu->dequantize_weights(packed, one, x); });
  check([&] { gpu->dequantize_weights(make(DType::u8, {2, 60}), one, make(DType::f32, {8, 60})); });
  check([&] { gpu->blend(x, w, 0.5f, x); });
  check([&] { gpu->count_codes(w); });
}

}  // namespace
}  // namespace bitnet
