// SPDX-License-Identifier: MIT
// The kernels that walk rows once or twice: norms, activations, RoPE, loss, update, sums. See
// float_kernels.h for what each computes. Included by each float_<isa>.cpp after lanes_math.h.
#pragma once

#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

void norm(bool layer, const float* x, const float* gain, float eps, std::int64_t rows,
          std::int64_t n, float* y, float* stats) {
  const Lanes one = set1(1.0f);
  const Lanes count = set1(static_cast<float>(n));
  for (std::int64_t row = 0; row < rows; ++row, x += n, y += n, stats += 2) {
    Lanes mean = zero();
    if (layer) {
      Lanes sum = zero();
      each_lanes(n, [&](std::int64_t i, auto part) { sum = sum + load(x + i, part, zero()); });
      mean = set1(sum_lanes(sum)) / count;
    }
    Lanes squares = zero();
    each_lanes(n, [&](std::int64_t i, auto part) {
      const Lanes centered = load(x + i, part, mean) - mean;
      squares = fma(centered, centered, squares);
    });
    const Lanes variance = set1(sum_lanes(squares)) / count;
    const Lanes inv_std = one / sqrt(variance + set1(eps));
    each_lanes(n, [&](std::int64_t i, auto part) {
      const Lanes normalized = (load(x + i, part, zero()) - mean) * inv_std;
      store(y + i, part, gain == nullptr ? normalized : normalized * load(gain + i, part, zero()));
    });
    store(stats, First{1}, mean);
    store(stats + 1, First{1}, inv_std);
  }
}

void norm_backward(bool layer, const float* x, const float* gain, const float* stats,
                   const float* dy, std::int64_t rows, std::int64_t n, float* dx, float* dgain) {
  const Lanes count = set1(static_cast<float>(n));
  for (std::int64_t row = 0; row < rows; ++row, x += n, dy += n, dx += n, stats += 2) {
    const Lanes mean = set1(stats[0]), inv_std = set1(stats[1]);
    Lanes sum = zero(), product_sum = zero();  // of g and of g x̂
    each_lanes(n, [&](std::int64_t i, auto part) {
      const Lanes normalized = (load(x + i, part, mean) - mean) * inv_std;
      const Lanes d = load(dy + i, part, zero());
      const Lanes g = gain == nullptr ? d : d * load(gain + i, part, zero());
      sum = sum + g;
      product_sum = fma(g, normalized, product_sum);
      if (dgain != nullptr) {
        store(dgain + i, part, fma(d, normalized, load(dgain + i, part, zero())));
      }
    });
    const Lanes g_mean = layer ? set1(sum_lanes(sum)) / count : zero();
    const Lanes product_mean = set1(sum_lanes(product_sum)) / count;
    each_lanes(n, [&](std::int64_t i, auto part) {
      const Lanes normalized = (load(x + i, part, mean) - mean) * inv_std;
      const Lanes d = load(dy + i, part, zero());
      const Lanes g = gain == nullptr ? d : d * load(gain + i, part, zero());
      store(dx + i, part, inv_std * ((g - normalized * product_mean) - g_mean));
    });
  }
}

void rope(float* x, const float* angles, std::int64_t heads, std::int64_t head_dim, float sign) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t head = 0; head < heads; ++head, x += head_dim) {
    each_lanes(half, [&](std::int64_t i, auto part) {
      const Lanes cosine = load(angles + i, part, zero());
      const Lanes sine = set1(sign) * load(angles + half + i, part, zero());
      const Lanes x0 = load(x + i, part, zero()), x1 = load(x + half + i, part, zero());
      store(x + i, part, fma(x0, cosine, zero() - x1 * sine));
      store(x + half + i, part, fma(x1, cosine, x0 * sine));
    });
  }
}

// An activation's value and derivative at x.
struct Silu {
  static Lanes value(Lanes x) { return x * sigmoid(x); }
  static void both(Lanes x, Lanes& value, Lanes& derivative) {
    const Lanes s = sigmoid(x);
    value = x * s;
    derivative = fma(value, set1(1.0f) - s, s);
  }
};
struct Relu2 {
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
    store(y + i, part, up == nullptr ? value : value * load(up + i, part, zero()));
  });
}

template <typename Activation>
void activation_backward(const float* gate, const float* up, const float* dy, float* dgate,
                         float* dup, std::int64_t n) {
  each_lanes(n, [&](std::int64_t i, auto part) {
    const Lanes d = load(dy + i, part, zero());
    Lanes value, derivative;
    Activation::both(load(gate + i, part, zero()), value, derivative);
    if (up == nullptr) {
      store(dgate + i, part, d * derivative);
    } else {
      const Lanes dvalue = d * load(up + i, part, zero());
      store(dgate + i, part, dvalue * derivative);
      store(dup + i, part, d * value);
    }
  });
}

void add(const float* a, const float* b, float* y, std::int64_t n) {
  each_lanes(n, [&](std::int64_t i, auto part) {
    store(y + i, part, load(a + i, part, zero()) + load(b + i, part, zero()));
  });
}

void exp_row(const float* x, float* y, std::int64_t n) {
  each_lanes(
      n, [&](std::int64_t i, auto part) { store(y + i, part, exp(load(x + i, part, zero()))); });
}

float cross_entropy(const float* logits, std::int64_t n, std::int64_t target, float scale,
                    float* dlogits) {
  const Lanes lowest = set1(-__builtin_inff());
  Lanes largest = lowest;
  each_lanes(n, [&](std::int64_t i, auto part) {
    largest = max(largest, load(logits + i, part, lowest));
  });
  const float peak = max_lane(largest);
  Lanes sum = zero();
  each_lanes(n, [&](std::int64_t i, auto part) {
    sum = sum + exp(load(logits + i, part, lowest) - set1(peak));
  });
  const float total = sum_lanes(sum);
  const double loss = __builtin_log(static_cast<double>(total)) +
                      (static_cast<double>(peak) - static_cast<double>(logits[target]));
  if (dlogits != nullptr) {
    const Lanes factor = set1(scale) / set1(total);
    each_lanes(n, [&](std::int64_t i, auto part) {
      store(dlogits + i, part, exp(load(logits + i, part, lowest) - set1(peak)) * factor);
    });
    dlogits[target] -= scale;
  }
  return static_cast<float>(loss);
}

void adamw(const AdamWFactors& f, const float* gradient, float* parameter, float* m, float* v,
           std::int64_t n) {
  each_lanes(n, [&](std::int64_t i, auto part) {
    const Lanes g = load(gradient + i, part, zero()) * set1(f.grad_scale);
    const Lanes m0 = load(m + i, part, zero());
    const Lanes m1 = fma(set1(f.one_minus_beta1), g - m0, m0);
    const Lanes v1 = fma(set1(f.one_minus_beta2) * g, g, load(v + i, part, zero()) * set1(f.beta2));
    const Lanes denominator = fma(sqrt(v1), set1(f.inv_sqrt_bias2), set1(f.eps));
    const Lanes decayed = load(parameter + i, part, zero()) * set1(f.decay);
    store(m + i, part, m1);
    store(v + i, part, v1);
    store(parameter + i, part, fma(set1(-f.step_size), m1 / denominator, decayed));
  });
}

double sum(const float* x, std::int64_t n) {
  double lanes[16] = {};
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int l = 0; l < 16; ++l) lanes[l] += static_cast<double>(x[i + l]);
  }
  for (int l = 0; i + l < n; ++l) lanes[l] += static_cast<double>(x[i + l]);
  return sum_lanes(lanes);
}

double sum_of_squares(const float* x, std::int64_t n) {  // the square of a float is exact in double
  double lanes[16] = {};
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int l = 0; l < 16; ++l) {
      lanes[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
    }
  }
  for (int l = 0; i + l < n; ++l) {
    lanes[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
  }
  return sum_lanes(lanes);
}

}  // namespace
}  // namespace bitnet::cpu
