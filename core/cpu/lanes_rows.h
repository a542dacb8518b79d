// SPDX-License-Identifier: MIT
// The kernels that walk rows once or twice: RoPE, addition, loss, update, sums. See
// float_kernels.h for what each computes. Included by each float_<isa>.cpp after lanes_math.h.
#pragma once

#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

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
  const float peak = max_lane(largest), at_target = logits[target];
  Lanes sum = zero();
  each_lanes(n, [&](std::int64_t i, auto part) {
    const Lanes power = exp(load(logits + i, part, lowest) - set1(peak));
    sum = sum + power;
    if (dlogits != nullptr) store(dlogits + i, part, power);
  });
  const float total = sum_lanes(sum);
  const double loss = __builtin_log(static_cast<double>(total)) +
                      (static_cast<double>(peak) - static_cast<double>(at_target));
  if (dlogits != nullptr) {
    const Lanes factor = set1(scale) / set1(total);
    each_lanes(n, [&](std::int64_t i, auto part) {
      store(dlogits + i, part, load(dlogits + i, part, zero()) * factor);
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
