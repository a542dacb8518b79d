// SPDX-License-Identifier: MIT
// Activations, their gates, and both together with the norm and the quantisation behind them. See
// float_kernels.h for what each computes. Included by each float_<isa>.cpp after lanes_math.h.
#pragma once

#include "core/cpu/float_kernels.h"
#include "core/cpu/lanes_norm.h"

namespace bitnet::cpu {
namespace {

// An activation's value and derivative at x. kQuick: they are quicker to make than to keep.
struct Silu {
  static constexpr bool kQuick = false;
  static Lanes value(Lanes x) { return x * sigmoid(x); }
  static void both(Lanes x, Lanes& value, Lanes& derivative) {
    const Lanes s = sigmoid(x);
    value = x * s;
    derivative = fma(value, set1(1.0f) - s, s);
  }
};
struct Relu2 {
  static constexpr bool kQuick = true;
  static Lanes value(Lanes x) {
    const Lanes r = select_less(x, zero(), zero(), x);
    return r * r;
  }
  static void both(Lanes x, Lanes& value, Lanes& derivative) {
    const Lanes r = select_less(x, zero(), zero(), x);
    value = r * r;
    derivative = r + r;
  }
};
struct Gelu {
  static constexpr bool kQuick = false;
  static Lanes value(Lanes x) { return x * normal(x).cdf; }
  static void both(Lanes x, Lanes& value, Lanes& derivative) {
    const Normal at = normal(x);
    value = x * at.cdf;
    derivative = fma(x, at.density, at.cdf);
  }
};

template <typename Activation>
void activation_forward(const float* gate, const float* up, float* y, std::int64_t n) {
  each_lanes(n, [&](std::int64_t i, auto part) {
    const Lanes value = Activation::value(load(gate + i, part, zero()));
    store(y + i, part, scaled_by(up, i, part, value));
  });
}

template <typename Activation>
void activation_backward(const float* gate, const float* up, const float* dy, float* dgate,
                         float* dup, std::int64_t n) {
  each_lanes(n, [&](std::int64_t i, auto part) {
    const Lanes d = load(dy + i, part, zero());
    Lanes value, derivative;
    Activation::both(load(gate + i, part, zero()), value, derivative);
    store(dgate + i, part, scaled_by(up, i, part, d) * derivative);
    if (up != nullptr) store(dup + i, part, d * value);
  });
}

template <bool kLayer, typename Values>
inline float norm_quantize_values(const RowNorm& norm, std::int64_t n, const Values& values,
                                  float* row, std::int8_t* codes, float* stats) {
  const Statistics s = statistics_of<kLayer>(n, norm.eps, values, row);
  store_statistics(s, stats);
  return quantize_values(
      n,
      [&](std::int64_t i, auto part) {
        const Lanes y =
            scaled_by(norm.gain, i, part, normalized<kLayer>(load(row + i, part, zero()), s));
        store(row + i, part, y);
        return y;
      },
      [&](std::int64_t i, auto part) { return load(row + i, part, zero()); }, codes);
}

template <typename Activation>
float activation_quantize(const float* gate, const float* up, std::int64_t n, const RowNorm* norm,
                          float* row, std::int8_t* codes, float* stats) {
  const auto values = [&](std::int64_t i, auto part) {
    const Lanes value = scaled_by(up, i, part, Activation::value(load(gate + i, part, zero())));
    store(row + i, part, value);
    return value;
  };
  if (norm == nullptr) {
    return quantize_values(
        n, values, [&](std::int64_t i, auto part) { return load(row + i, part, zero()); }, codes);
  }
  return norm->layer ? norm_quantize_values<true>(*norm, n, values, row, codes, stats)
                     : norm_quantize_values<false>(*norm, n, values, row, codes, stats);
}

// What is not quick to make, the first walk leaves in the scratch row for the second one.
template <typename Activation, bool kLayer>
inline void norm_backward_of(const RowNorm& norm, const float* gate, const float* up,
                             std::int64_t n, const Statistics& s, const float* dy, float* scratch,
                             float* dgate, float* dup, float* dgain) {
  float *const values = scratch, *const derivatives = scratch + n;
  const auto first = [&](std::int64_t i, auto part, Lanes fill) {
    Lanes value, derivative;
    Activation::both(load(gate + i, part, zero()), value, derivative);
    if constexpr (!Activation::kQuick) {
      store(values + i, part, value);
      store(derivatives + i, part, derivative);
    }
    return padded(part, scaled_by(up, i, part, value), fill);
  };
  const GradientMeans means = gradient_means<kLayer>(n, norm.gain, s, first, dy, dgain);
  each_lanes(n, [&](std::int64_t i, auto part) {
    Lanes value, derivative;
    if constexpr (Activation::kQuick) {
      Activation::both(load(gate + i, part, zero()), value, derivative);
    } else {
      value = load(values + i, part, zero());
      derivative = load(derivatives + i, part, zero());
    }
    const Lanes x_hat = normalized<kLayer>(scaled_by(up, i, part, value), s);
    const Lanes g = scaled_by(norm.gain, i, part, load(dy + i, part, zero()));
    const Lanes d = norm_gradient<kLayer>(x_hat, g, s, means);
    store(dgate + i, part, scaled_by(up, i, part, d) * derivative);
    if (up != nullptr) store(dup + i, part, d * value);
  });
}

template <typename Activation>
void activation_norm_backward(const float* gate, const float* up, std::int64_t n,
                              const RowNorm& norm, const float* stats, const float* dy,
                              float* scratch, float* dgate, float* dup, float* dgain) {
  const Statistics s = {set1(stats[0]), set1(stats[1])};
  (norm.layer
       ? norm_backward_of<Activation, true>
       : norm_backward_of<Activation, false>)(norm, gate, up, n, s, dy, scratch, dgate, dup, dgain);
}

template <typename Activation>
constexpr ActivationKernels activation_kernels() {
  return {.forward = activation_forward<Activation>,
          .backward = activation_backward<Activation>,
          .quantize = activation_quantize<Activation>,
          .norm_backward = activation_norm_backward<Activation>};
}

}  // namespace
}  // namespace bitnet::cpu
