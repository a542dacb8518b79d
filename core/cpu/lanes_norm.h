// SPDX-License-Identifier: MIT
// Norms of rows, alone and in front of a quantisation, and their gradient. See float_kernels.h for
// what each computes. A row is walked three or four times, of which only the first reads memory.
// Included by each float_<isa>.cpp after lanes_math.h.
#pragma once

#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

struct Statistics {
  Lanes mean, inv_std;
};

// body(i, part, chain) for i = 0, 16, …, the four chains taking turns. A single chain of additions
// would cost its latency, four cycles, for every vector.
template <typename Chain, typename Body>
inline void each_lanes_in_chains(std::int64_t n, Chain chains[4], const Body& body) {
  Chain a = chains[0], b = chains[1], c = chains[2], d = chains[3];
  std::int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    body(i, All{}, a);
    body(i + 16, All{}, b);
    body(i + 32, All{}, c);
    body(i + 48, All{}, d);
  }
  chains[0] = a, chains[1] = b, chains[2] = c, chains[3] = d;
  for (Chain* chain = chains; i < n; i += 16, ++chain) {
    if (i + 16 <= n) {
      body(i, All{}, *chain);
    } else {
      body(i, First{static_cast<int>(n - i)}, *chain);
    }
  }
}

inline float sum_chains(Lanes a, Lanes b, Lanes c, Lanes d) { return sum_lanes((a + c) + (b + d)); }

// first(i, part) gives the row's elements on the first walk; on later ones they are read from x.
template <bool kLayer, typename FirstWalk>
inline Statistics statistics_of(std::int64_t n, float eps, const FirstWalk& first, const float* x) {
  const Lanes count = set1(static_cast<float>(n));
  Lanes mean = zero();
  Lanes squares[4] = {zero(), zero(), zero(), zero()};
  if constexpr (kLayer) {
    Lanes sums[4] = {zero(), zero(), zero(), zero()};
    each_lanes_in_chains(
        n, sums, [&](std::int64_t i, auto part, Lanes& sum) { sum = sum + first(i, part); });
    mean = set1(sum_chains(sums[0], sums[1], sums[2], sums[3])) / count;
    each_lanes_in_chains(n, squares, [&](std::int64_t i, auto part, Lanes& sum) {
      const Lanes centered = load(x + i, part, mean) - mean;
      sum = fma(centered, centered, sum);
    });
  } else {
    each_lanes_in_chains(n, squares, [&](std::int64_t i, auto part, Lanes& sum) {
      const Lanes value = first(i, part);
      sum = fma(value, value, sum);
    });
  }
  const Lanes variance = set1(sum_chains(squares[0], squares[1], squares[2], squares[3])) / count;
  return {mean, set1(1.0f) / sqrt(variance + set1(eps))};
}

inline void store_statistics(const Statistics& s, float* stats) {
  store(stats, First{1}, s.mean);
  store(stats + 1, First{1}, s.inv_std);
}

template <bool kLayer>
inline Lanes normalized(Lanes x, const Statistics& s) {
  if constexpr (kLayer) return (x - s.mean) * s.inv_std;
  return x * s.inv_std;
}

template <typename Part>
inline Lanes scaled_by(const float* gain, std::int64_t i, Part part, Lanes x) {
  return gain == nullptr ? x : x * load(gain + i, part, zero());
}

// quantize_token() of the elements that first(i, part) gives on the first walk and again(i, part)
// on the second one. Returns act_scale.
template <typename FirstWalk, typename SecondWalk>
inline float quantize_values(std::int64_t n, const FirstWalk& first, const SecondWalk& again,
                             std::int8_t* codes) {
  Lanes largest = zero();
  each_lanes(n, [&](std::int64_t i, auto part) {
    largest = max_magnitude(largest, padded(part, first(i, part), zero()));
  });
  const float absmax = largest_magnitude(largest);  // NaN if there is one
  if (!(absmax < __builtin_inff())) {
    for (std::int64_t i = 0; i < n; ++i) codes[i] = 0;
    return absmax / kActivationMax;
  }
  const float bounded = absmax < kScaleEps ? kScaleEps : absmax;
  const Lanes inv_scale = set1(kActivationMax / bounded);
  each_lanes(n, [&](std::int64_t i, auto part) {
    store_codes(codes + i, part, again(i, part) * inv_scale);
  });
  return bounded / kActivationMax;
}

template <bool kLayer>
void norm_rows(const RowNorm& norm, const float* x, std::int64_t rows, std::int64_t n, float* y,
               float* stats) {
  for (std::int64_t row = 0; row < rows; ++row, x += n, y += n, stats += 2) {
    const auto element = [&](std::int64_t i, auto part) { return load(x + i, part, zero()); };
    const Statistics s = statistics_of<kLayer>(n, norm.eps, element, x);
    each_lanes(n, [&](std::int64_t i, auto part) {
      store(y + i, part, scaled_by(norm.gain, i, part, normalized<kLayer>(element(i, part), s)));
    });
    store_statistics(s, stats);
  }
}

void norm(const RowNorm& norm, const float* x, std::int64_t rows, std::int64_t n, float* y,
          float* stats) {
  (norm.layer ? norm_rows<true> : norm_rows<false>)(norm, x, rows, n, y, stats);
}

// The normalised row is made twice rather than stored: that is as quick, and needs no memory.
template <bool kLayer>
void norm_quantize_rows(const RowNorm& norm, const float* x, std::int64_t rows, std::int64_t n,
                        std::int8_t* codes, float* act_scale, float* stats) {
  for (std::int64_t row = 0; row < rows; ++row, x += n, codes += n, stats += 2) {
    const auto element = [&](std::int64_t i, auto part) { return load(x + i, part, zero()); };
    const Statistics s = statistics_of<kLayer>(n, norm.eps, element, x);
    const auto value = [&](std::int64_t i, auto part) {
      return scaled_by(norm.gain, i, part, normalized<kLayer>(element(i, part), s));
    };
    act_scale[row] = quantize_values(n, value, value, codes);
    store_statistics(s, stats);
  }
}

void norm_quantize(const RowNorm& norm, const float* x, std::int64_t rows, std::int64_t n,
                   std::int8_t* codes, float* act_scale, float* stats) {
  (norm.layer ? norm_quantize_rows<true> : norm_quantize_rows<false>)(norm, x, rows, n, codes,
                                                                      act_scale, stats);
}

// The two means over a row that a norm's gradient needs, of g = dy * gain and of g x̂.
struct GradientMeans {
  Lanes g, product;
};

// value(i, part, fill) gives the elements of the norm's input, `fill` beyond the row's end.
template <bool kLayer, typename Value>
inline GradientMeans gradient_means(std::int64_t n, const float* gain, const Statistics& s,
                                    const Value& value, const float* dy, float* dgain) {
  GradientMeans sums[4] = {{zero(), zero()}, {zero(), zero()}, {zero(), zero()}, {zero(), zero()}};
  each_lanes_in_chains(n, sums, [&](std::int64_t i, auto part, GradientMeans& sum) {
    const Lanes x_hat = normalized<kLayer>(value(i, part, s.mean), s);
    const Lanes d = load(dy + i, part, zero());
    const Lanes g = scaled_by(gain, i, part, d);
    if constexpr (kLayer) sum.g = sum.g + g;
    sum.product = fma(g, x_hat, sum.product);
    if (dgain != nullptr) store(dgain + i, part, fma(d, x_hat, load(dgain + i, part, zero())));
  });
  const Lanes count = set1(static_cast<float>(n));
  const float products =
      sum_chains(sums[0].product, sums[1].product, sums[2].product, sums[3].product);
  if constexpr (!kLayer) return {zero(), set1(products) / count};
  return {set1(sum_chains(sums[0].g, sums[1].g, sums[2].g, sums[3].g)) / count,
          set1(products) / count};
}

template <bool kLayer>
inline Lanes norm_gradient(Lanes x_hat, Lanes g, const Statistics& s, const GradientMeans& means) {
  const Lanes rest = g - x_hat * means.product;
  if constexpr (kLayer) return s.inv_std * (rest - means.g);
  return s.inv_std * rest;
}

template <bool kLayer>
void norm_backward_rows(const float* gain, const float* x, const float* stats, const float* dy,
                        std::int64_t rows, std::int64_t n, float* dx, bool accumulate,
                        float* dgain) {
  for (std::int64_t row = 0; row < rows; ++row, x += n, dy += n, dx += n, stats += 2) {
    const Statistics s = {set1(stats[0]), set1(stats[1])};
    const auto value = [&](std::int64_t i, auto part, Lanes fill) {
      return load(x + i, part, fill);
    };
    const GradientMeans means = gradient_means<kLayer>(n, gain, s, value, dy, dgain);
    each_lanes(n, [&](std::int64_t i, auto part) {
      const Lanes g = scaled_by(gain, i, part, load(dy + i, part, zero()));
      const Lanes d =
          norm_gradient<kLayer>(normalized<kLayer>(value(i, part, zero()), s), g, s, means);
      store(dx + i, part, accumulate ? load(dx + i, part, zero()) + d : d);
    });
  }
}

void norm_backward(const RowNorm& norm, const float* x, const float* stats, const float* dy,
                   std::int64_t rows, std::int64_t n, float* dx, bool accumulate, float* dgain) {
  (norm.layer ? norm_backward_rows<true> : norm_backward_rows<false>)(norm.gain, x, stats, dy, rows,
                                                                      n, dx, accumulate, dgain);
}

}  // namespace
}  // namespace bitnet::cpu
