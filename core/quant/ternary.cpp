// SPDX-License-Identifier: MIT
// The quantisers as written in the papers, one element after another: the definition, not the quick
// way.
#include "core/quant/ternary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "core/base/error.h"

namespace bitnet {
namespace {

constexpr std::uint32_t kMagnitudeMask = 0x7fffffffu;
constexpr std::uint32_t kInfinityBits = 0x7f800000u;

// kScaleEps as the lower bound; NaN stays NaN.
float bounded(float scale) { return scale < kScaleEps ? kScaleEps : scale; }

template <typename Term>
double sum_of_tile(std::span<const float> w, const Term& term) {
  std::array<double, 16> lanes{};
  for (std::size_t k = 0; k < w.size(); ++k) lanes[k % 16] += static_cast<double>(term(w[k]));
  for (std::size_t width = 8; width >= 1; width /= 2) {
    for (std::size_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

template <typename Term>
double sum_of(std::span<const float> w, const Term& term) {
  double sum = 0;
  for (std::size_t k = 0; k < w.size(); k += kSumTile) {
    sum += sum_of_tile(w.subspan(k, std::min<std::size_t>(kSumTile, w.size() - k)), term);
  }
  return sum;
}

std::int64_t signed_size(std::span<const float> w) { return static_cast<std::int64_t>(w.size()); }

}  // namespace

LinearKind parse_linear_kind(const std::string& name) {
  for (const LinearKind kind : {LinearKind::float32, LinearKind::b158, LinearKind::b1}) {
    if (name == to_string(kind)) return kind;
  }
  throw UsageError(
      fmt::format("'{}' is not a kind of linear layer; expected float, b158 or b1", name));
}

const char* to_string(LinearKind kind) {
  switch (kind) {
    case LinearKind::float32:
      return "float";
    case LinearKind::b158:
      return "b158";
    case LinearKind::b1:
      return "b1";
  }
  return "?";
}

std::int64_t scale_count(const WeightQuantizer& q, std::int64_t rows, std::int64_t columns) {
  if (q.group_size == 0) return 1;
  BITNET_CHECK(q.group_size > 0 && columns % q.group_size == 0,
               "weight groups of {} columns do not divide rows of {} columns", q.group_size,
               columns);
  return rows * (columns / q.group_size);
}

// --- weights ---

float weight_scale_of_sum(double sum_of_magnitudes, std::int64_t count) {
  return bounded(static_cast<float>(sum_of_magnitudes / static_cast<double>(count)));
}

float weight_mean_of_sum(double sum, std::int64_t count) {
  return static_cast<float>(sum / static_cast<double>(count));
}

float weight_scale_of_magnitudes(std::span<std::uint32_t> magnitude_bits) {
  BITNET_CHECK(!magnitude_bits.empty(), "the median of no weights is not defined");
  const auto middle =
      magnitude_bits.begin() + static_cast<std::ptrdiff_t>((magnitude_bits.size() - 1) / 2);
  std::nth_element(magnitude_bits.begin(), middle, magnitude_bits.end());
  const std::uint32_t largest = *std::max_element(middle, magnitude_bits.end());
  return bounded(std::bit_cast<float>(largest >= kInfinityBits ? largest : *middle));
}

float weight_scale(ScaleMeasure measure, std::span<const float> w) {
  BITNET_CHECK(!w.empty(), "the scale of no weights is not defined");
  if (measure == ScaleMeasure::absmean) {
    return weight_scale_of_sum(sum_of(w, [](float v) { return std::fabs(v); }), signed_size(w));
  }
  std::vector<std::uint32_t> bits(w.size());
  std::transform(w.begin(), w.end(), bits.begin(),
                 [](float v) { return std::bit_cast<std::uint32_t>(v) & kMagnitudeMask; });
  return weight_scale_of_magnitudes(bits);
}

float weight_mean(std::span<const float> w) {
  BITNET_CHECK(!w.empty(), "the mean of no weights is not defined");
  return weight_mean_of_sum(sum_of(w, [](float v) { return v; }), signed_size(w));
}

void ternary_codes(std::span<const float> w, float weight_scale, std::span<std::int8_t> codes) {
  BITNET_CHECK(codes.size() == w.size(), "{} codes for {} weights", codes.size(), w.size());
  const float inv_scale = 1.0f / weight_scale;
  for (std::size_t k = 0; k < w.size(); ++k) {
    // Ties to even, so ±0.5 round to 0 and all beyond to ±1 or more, which is clipped.
    const float scaled = w[k] * inv_scale;
    codes[k] = static_cast<std::int8_t>((scaled > 0.5f) - (scaled < -0.5f));
  }
}

void binary_codes(std::span<const float> w, float mean, std::span<std::int8_t> codes) {
  BITNET_CHECK(codes.size() == w.size(), "{} codes for {} weights", codes.size(), w.size());
  for (std::size_t k = 0; k < w.size(); ++k) codes[k] = w[k] - mean > 0.0f ? 1 : -1;
}

void quantize_weights(const WeightQuantizer& q, std::span<const float> w, std::int64_t rows,
                      std::int64_t columns, std::span<std::int8_t> codes, std::span<float> scales) {
  BITNET_CHECK(q.kind != LinearKind::float32, "a float linear layer has no codes");
  BITNET_CHECK(signed_size(w) == rows * columns && codes.size() == w.size(),
               "{} weights and {} codes given for {} rows of {} columns", w.size(), codes.size(),
               rows, columns);
  const auto count = static_cast<std::size_t>(scale_count(q, rows, columns));
  BITNET_CHECK(scales.size() == count, "{} scales given, expected {}", scales.size(), count);
  const std::size_t group = w.size() / std::max<std::size_t>(count, 1);
  for (std::size_t g = 0; g < count; ++g) {
    const auto weights = w.subspan(g * group, group);
    const auto group_codes = codes.subspan(g * group, group);
    scales[g] = weight_scale(q.measure, weights);
    if (q.kind == LinearKind::b158) {
      ternary_codes(weights, scales[g], group_codes);
    } else {
      binary_codes(weights, weight_mean(weights), group_codes);
    }
  }
}

// --- activations ---

float quantize_token(std::span<const float> x, std::span<std::int8_t> codes) {
  BITNET_CHECK(codes.size() == x.size(), "{} codes for {} activations", codes.size(), x.size());
  // Compared as integers: the bits of magnitudes order as the numbers do, and NaN lies above
  // infinity.
  std::uint32_t absmax_bits = 0;
  for (const float v : x) {
    absmax_bits = std::max(absmax_bits, std::bit_cast<std::uint32_t>(v) & kMagnitudeMask);
  }
  const float absmax = bounded(std::bit_cast<float>(absmax_bits));
  if (absmax_bits >= kInfinityBits) {
    std::fill(codes.begin(), codes.end(), std::int8_t{0});
  } else {
    const float inv_scale = kActivationMax / absmax;
    for (std::size_t k = 0; k < x.size(); ++k) {
      // |x · inv_scale| <= 127 (1 + 2^-23): the clip of the definition never takes effect.
      codes[k] = static_cast<std::int8_t>(std::nearbyint(x[k] * inv_scale));
    }
  }
  return absmax / kActivationMax;
}

}  // namespace bitnet
