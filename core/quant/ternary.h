// SPDX-License-Identifier: MIT
// The papers' quantisers as plain functions, and the packed 2-bit layout: the one definition that
// every backend is compared with. docs/numerics.md gives our choice where sources differ.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace bitnet {

// How the weights of a linear projection are quantised.
enum class LinearKind : std::uint8_t {
  float32,  // not at all: the float twin
  b158,     // ternary {-1, 0, +1}, arXiv 2402.17764
  b1,       // binary {-1, +1}, arXiv 2310.11453
};
enum class ScaleMeasure : std::uint8_t { absmean, absmedian };

LinearKind parse_linear_kind(const std::string& name);  // "float", "b158", "b1"
const char* to_string(LinearKind kind);

struct WeightQuantizer {
  LinearKind kind = LinearKind::b158;
  ScaleMeasure measure = ScaleMeasure::absmean;
  std::int64_t group_size =
      0;  // columns of one row that share a scale; 0: one scale for the whole matrix
  bool operator==(const WeightQuantizer&) const = default;
};

// Lower bound of every scale, as in the authors' code: keeps 1/scale finite for an all-zero tensor.
inline constexpr float kScaleEps = 1e-5f;
inline constexpr float kActivationMax = 127.0f;

// The number of scales of a [rows, columns] matrix: 1, or rows * columns / group_size.
std::int64_t scale_count(const WeightQuantizer& q, std::int64_t rows, std::int64_t columns);

// --- weights ---
// weight_scale of one group (or of the whole matrix), with W ≈ weight_scale · codes:
//   absmean    max(mean |W|, kScaleEps)        b1.58 Eq. 3 (γ), b1 Eq. 12 (β)
//   absmedian  max(median |W|, kScaleEps)      2407.09527; the lower median: an element of |W|
// A NaN or infinite element makes the scale NaN or infinite, so that it shows in the loss instead
// of being rounded away.
float weight_scale(ScaleMeasure measure, std::span<const float> w);

// The mean of W (b1's α).
float weight_mean(std::span<const float> w);

// Both means are sums of tiles of at most kSumTile consecutive elements, the tile sums being added
// in ascending order. Within a tile lane l of 16 adds up elements l, l + 16, …; then lane l += lane
// l + 8, + 4, + 2, + 1. All in double. Fixing this order lets every instruction set and any number
// of threads compute the same bits.
inline constexpr std::int64_t kSumTile = 4096;
float weight_scale_of_sum(double sum_of_magnitudes, std::int64_t count);
float weight_mean_of_sum(double sum, std::int64_t count);
// The absmedian scale from the bits of |W|, which it reorders. Such bits order as the numbers do.
float weight_scale_of_magnitudes(std::span<std::uint32_t> magnitude_bits);

// b1.58 Eq. 1-2: codes = RoundClip(W · (1 / weight_scale), -1, 1), 1/scale rounded to fp32 first;
// ties to even. A NaN product gives 0.
void ternary_codes(std::span<const float> w, float weight_scale, std::span<std::int8_t> codes);

// b1 Eq. 1-2: codes = +1 where W - mean > 0, else -1 (Sign(0) = -1, and so is a NaN).
void binary_codes(std::span<const float> w, float mean, std::span<std::int8_t> codes);

// Whole matrix: codes [rows, columns] and scales [scale_count]; group g of row r has scale index
// r * groups + g, and for b1 a mean of its own. Not for LinearKind::float32.
void quantize_weights(const WeightQuantizer& q, std::span<const float> w, std::int64_t rows,
                      std::int64_t columns, std::span<std::int8_t> codes, std::span<float> scales);

// --- activations ---
// One token (FAQ Fig. 3), with the bounded absmax γ = max(max |x|, kScaleEps):
//   codes = clip(round(x · (127 / γ)), -128, 127), ties to even
// Returns act_scale = γ / 127, with x ≈ act_scale · codes. If an element is NaN or infinite, so is
// act_scale, and the codes are 0: every product with this token is then NaN.
float quantize_token(std::span<const float> x, std::span<std::int8_t> codes);

// --- packed layout ---
// Hugging Face's: codes [rows, columns] -> bytes [rows / 4, columns]. The rows are cut in four
// quarters of R = rows / 4;
//   packed[r][c] = sum over i = 0..3 of (codes[i * R + r][c] + 1) << (2 * i).
// rows must be a multiple of 4. A 2-bit value of 3 is never written, and refused by unpack (returns
// false).
void pack_codes(std::span<const std::int8_t> codes, std::int64_t rows, std::int64_t columns,
                std::span<std::uint8_t> packed);
bool unpack_codes(std::span<const std::uint8_t> packed, std::int64_t rows, std::int64_t columns,
                  std::span<std::int8_t> codes);

// How many of the codes in a packed buffer are -1, 0, +1; `invalid` counts the value 3.
struct CodeCounts {
  std::int64_t minus = 0, zero = 0, plus = 0, invalid = 0;
  std::int64_t total() const { return minus + zero + plus + invalid; }
};
CodeCounts count_codes(std::span<const std::uint8_t> packed);
// The first byte that holds the value 3, or -1.
std::int64_t find_invalid_code(std::span<const std::uint8_t> packed);
// In how many places two packed buffers of equal size hold a different code.
std::int64_t count_flips(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b);

}  // namespace bitnet
