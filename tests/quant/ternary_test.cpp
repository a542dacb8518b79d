// SPDX-License-Identifier: MIT
#include "core/quant/ternary.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace bitnet {
namespace {

std::vector<float> random_weights(std::size_t count) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.01f, 0.02f);
  std::vector<float> w(count);
  for (auto& v : w) v = normal(random);
  return w;
}

TEST_CASE("the absmean scale is the mean magnitude, bounded below") {
  const std::vector<float> w = {1, -2, 3, -6};
  CHECK(weight_scale(ScaleMeasure::absmean, w) == 3.0f);
  CHECK(weight_mean(w) == -1.0f);
  CHECK(weight_scale(ScaleMeasure::absmean, std::vector<float>(7, 0.0f)) == kScaleEps);

  const auto many = random_weights(10000);  // three tiles, the last one partial
  long double sum = 0;
  for (const float v : many) sum += std::fabs(v);
  // Doubles carry 10000 terms with a relative error below 10000 * 2^-53, which rounds to within one
  // fp32 unit.
  const double expected = static_cast<double>(sum / 10000);
  CHECK(std::fabs(weight_scale(ScaleMeasure::absmean, many) - expected) <= expected * 0x1p-23);
}

TEST_CASE("sums add the 16 lanes of a tile by a tree, then the tiles") {
  // 1 is lost beside 1e17 in double: which elements survive tells the order. Lanes 0 and 8 meet
  // first, so their 1e17 cancel before the ones of the other lanes come in.
  std::vector<float> w(16, 1.0f);
  w[0] = 1e17f;
  w[8] = -1e17f;
  CHECK(weight_mean(w) == 14.0f / 16);
  // In different tiles they cancel only after the 1 beside the first is lost.
  std::vector<float> tiles(4097, 0.0f);
  tiles[0] = 1e17f;
  tiles[1] = 1.0f;
  tiles[4096] = -1e17f;
  CHECK(weight_mean(tiles) == 0.0f);
}

TEST_CASE("the absmedian scale is the lower median magnitude") {
  CHECK(weight_scale(ScaleMeasure::absmedian, std::vector<float>{-5, 1, 2}) == 2.0f);
  CHECK(weight_scale(ScaleMeasure::absmedian, std::vector<float>{-4, 1, 3, -2}) == 2.0f);
  CHECK(weight_scale(ScaleMeasure::absmedian, std::vector<float>{0, 0, 0, 9}) == kScaleEps);
}

TEST_CASE("weights that are not finite give a scale that is not finite") {
  for (const ScaleMeasure measure : {ScaleMeasure::absmean, ScaleMeasure::absmedian}) {
    for (const float bad :
         {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
          std::numeric_limits<float>::quiet_NaN()}) {
      auto w = random_weights(100);
      w[60] = bad;
      CHECK(!std::isfinite(weight_scale(measure, w)));
    }
  }
}

TEST_CASE("ternary codes round half to even and clip") {
  const std::vector<float> w = {0, 0.5f, -0.5f, 0.50001f, -0.50001f, 1.5f, -1.5f, 100, -100};
  std::vector<std::int8_t> codes(w.size());
  ternary_codes(w, 1.0f, codes);
  CHECK(codes == std::vector<std::int8_t>{0, 0, 0, 1, -1, 1, -1, 1, -1});
  for (const float v : random_weights(1000)) {
    std::vector<std::int8_t> code(1);
    ternary_codes(std::vector{v}, 0.02f, code);
    const float rounded = std::nearbyint(v * (1.0f / 0.02f));
    CHECK(code[0] == static_cast<int>(std::fmax(-1.0f, std::fmin(1.0f, rounded))));
  }
}

TEST_CASE("binary codes are the sign of the centred weight, and Sign(0) is -1") {
  std::vector<std::int8_t> codes(4);
  binary_codes(std::vector<float>{0.25f, 0.26f, -3, 9}, 0.25f, codes);
  CHECK(codes == std::vector<std::int8_t>{-1, 1, -1, 1});
}

TEST_CASE("groups of columns are quantised as matrices of their own") {
  const auto w = random_weights(8 * 192);
  for (const LinearKind kind : {LinearKind::b158, LinearKind::b1}) {
    const WeightQuantizer q{kind, ScaleMeasure::absmean, 64};
    REQUIRE(scale_count(q, 8, 192) == 24);
    std::vector<std::int8_t> codes(w.size()), group_codes(64);
    std::vector<float> scales(24), scale(1);
    quantize_weights(q, w, 8, 192, codes, scales);
    for (std::size_t g = 0; g < 24; ++g) {
      quantize_weights({kind, ScaleMeasure::absmean, 0}, std::span(w).subspan(g * 64, 64), 1, 64,
                       group_codes, scale);
      CHECK(scales[g] == scale[0]);
      CHECK(std::equal(group_codes.begin(), group_codes.end(),
                       codes.begin() + static_cast<std::ptrdiff_t>(g * 64)));
    }
  }
}

TEST_CASE("a token's codes times act_scale are within half a step of it") {
  const auto x = random_weights(300);
  std::vector<std::int8_t> codes(x.size());
  const float act_scale = quantize_token(x, codes);
  int largest = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    largest = std::max(largest, std::abs(static_cast<int>(codes[k])));
    // Half a step, and the rounding of 127 / absmax and of the two products: 127 * 3 units of 2^-24
    // of a step.
    CHECK(std::fabs(x[k] - act_scale * codes[k]) <= act_scale * (0.5f + 127 * 3 * 0x1p-24f));
  }
  CHECK(largest == 127);
}

TEST_CASE("a token of zeros has codes 0 and a finite scale; one that is not finite shows it") {
  std::vector<std::int8_t> codes(5, 1);
  CHECK(quantize_token(std::vector<float>(5, 0.0f), codes) == kScaleEps / kActivationMax);
  CHECK(codes == std::vector<std::int8_t>(5, 0));
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    CHECK(!std::isfinite(quantize_token(std::vector<float>{1, 2, bad, 4, 5}, codes)));
    CHECK(codes == std::vector<std::int8_t>(5, 0));
  }
}

TEST_CASE("the names of the linear kinds are read back, and others refused") {
  for (const LinearKind kind : {LinearKind::float32, LinearKind::b158, LinearKind::b1}) {
    CHECK(parse_linear_kind(to_string(kind)) == kind);
  }
  CHECK_THROWS_AS(parse_linear_kind("b2"), UsageError);
}

TEST_CASE("quantisers refuse shapes that do not fit") {
  std::vector<float> w(128), scales(2);
  std::vector<std::int8_t> codes(128);
  CHECK_THROWS_AS(scale_count({LinearKind::b158, ScaleMeasure::absmean, 48}, 2, 64), ContractError);
  CHECK_THROWS_AS(quantize_weights({}, w, 2, 64, codes, scales), ContractError);
  CHECK_THROWS_AS(
      quantize_weights({LinearKind::float32, ScaleMeasure::absmean, 0}, w, 2, 64, codes, scales),
      ContractError);
}

}  // namespace
}  // namespace bitnet
