// SPDX-License-Identifier: MIT
// Gradients of tests/reference/ops.h in double, written out from the maths; complex_step_test.cpp
// holds them to the forward functions. Each returns fresh gradients (nothing accumulates).
#pragma once

#include <vector>

#include "tests/reference/ops.h"

namespace bitnet::reference {

using Doubles = std::vector<double>;

struct NormGradients {
  Doubles dx, dgain;
};

// With n = (x - mean) inv_std and g = dy · gain:  dx = inv_std (g - mean(g) - n mean(g n)), where
// RMSNorm has no mean(g).
inline NormGradients norm_backward(NormKind kind, const Doubles& x, const Doubles& gain, double eps,
                                   const Doubles& dy, std::int64_t rows, std::int64_t width) {
  NormGradients out{zeros<double>(rows * width), zeros<double>(gain.empty() ? 0 : width)};
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto stats = norm_stats(kind, &x[at(r * width)], width, eps);
    double mean_g = 0, mean_gn = 0;
    const auto normed = [&](std::int64_t i) {
      return (x[at(r * width + i)] - stats.mean) * stats.inv_std;
    };
    const auto g = [&](std::int64_t i) {
      return dy[at(r * width + i)] * (gain.empty() ? 1.0 : gain[at(i)]);
    };
    for (std::int64_t i = 0; i < width; ++i) {
      if (kind == NormKind::layer) mean_g += g(i) / double(width);
      mean_gn += g(i) * normed(i) / double(width);
      if (!gain.empty()) out.dgain[at(i)] += dy[at(r * width + i)] * normed(i);
    }
    for (std::int64_t i = 0; i < width; ++i)
      out.dx[at(r * width + i)] = stats.inv_std * (g(i) - mean_g - normed(i) * mean_gn);
  }
  return out;
}

struct LinearGradients {
  Doubles dx, dw;
};

// dx = dy w,  dw = dyᵀ x.
inline LinearGradients linear_backward(const Doubles& x, const Doubles& w, const Doubles& dy,
                                       std::int64_t rows, std::int64_t outputs,
                                       std::int64_t inputs) {
  LinearGradients out{zeros<double>(rows * inputs), zeros<double>(outputs * inputs)};
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t n = 0; n < outputs; ++n)
      for (std::int64_t k = 0; k < inputs; ++k) {
        out.dx[at(r * inputs + k)] += dy[at(r * outputs + n)] * w[at(n * inputs + k)];
        out.dw[at(n * inputs + k)] += dy[at(r * outputs + n)] * x[at(r * inputs + k)];
      }
  return out;
}

struct AttentionGradients {
  Doubles dq, dk, dv;
};

// dv = pᵀ dout;  ds = p (dp - sum(p dp)) with dp = dout vᵀ;  dq = ds k / sqrt(E),  dk = dsᵀ q /
// sqrt(E). Key/value heads sum over the query heads that read them.
inline AttentionGradients attention_backward(const AttentionShape& s, const Doubles& q,
                                             const Doubles& k, const Doubles& v,
                                             const Doubles& dout) {
  AttentionGradients out{zeros<double>(std::int64_t(q.size())),
                         zeros<double>(std::int64_t(k.size())),
                         zeros<double>(std::int64_t(v.size()))};
  const Doubles p = attention_probabilities(s, q, k);
  const double scale = 1.0 / std::sqrt(double(s.head_dim));
  for (std::int64_t b = 0; b < s.batch; ++b)
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t t = 0; t < s.queries; ++t) {
        const std::int64_t g = h / (s.heads / s.kv_heads), seen = s.first_position + t + 1;
        const double* row = &p[at(((b * s.heads + h) * s.queries + t) * s.keys)];
        const std::size_t query = at(((b * s.queries + t) * s.heads + h) * s.head_dim);
        const auto key = [&](std::int64_t j) {
          return at(((b * s.keys + j) * s.kv_heads + g) * s.head_dim);
        };
        Doubles dp = zeros<double>(seen);
        double mean_dp = 0;
        for (std::int64_t j = 0; j < seen; ++j) {
          for (std::size_t e = 0; e < at(s.head_dim); ++e)
            dp[at(j)] += dout[query + e] * v[key(j) + e];
          mean_dp += row[j] * dp[at(j)];
        }
        for (std::int64_t j = 0; j < seen; ++j) {
          const double ds = row[j] * (dp[at(j)] - mean_dp);
          for (std::size_t e = 0; e < at(s.head_dim); ++e) {
            out.dq[query + e] += ds * k[key(j) + e] * scale;
            out.dk[key(j) + e] += ds * q[query + e] * scale;
            out.dv[key(j) + e] += row[j] * dout[query + e];
          }
        }
      }
  return out;
}

// d activation / dx.
inline double activation_slope(Activation activation, double x) {
  switch (activation) {
    case Activation::silu: {
      const double sigmoid = 1.0 / (1.0 + std::exp(-x));
      return sigmoid * (1.0 + x * (1.0 - sigmoid));
    }
    case Activation::relu2:
      return x > 0 ? 2.0 * x : 0.0;
    case Activation::gelu: {
      const double density = std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi);
      return 0.5 * (1.0 + std::erf(x / std::numbers::sqrt2)) + x * density;
    }
  }
  return NAN;
}

struct GatedActivationGradients {
  Doubles dgate, dup;
};

inline GatedActivationGradients gated_activation_backward(Activation activation,
                                                          const Doubles& gate, const Doubles& up,
                                                          const Doubles& dy) {
  GatedActivationGradients out{dy, up.empty() ? Doubles{} : dy};
  for (std::size_t i = 0; i < dy.size(); ++i) {
    out.dgate[i] *= activation_slope(activation, gate[i]) * (up.empty() ? 1.0 : up[i]);
    if (!up.empty()) out.dup[i] *= activate(activation, gate[i]);
  }
  return out;
}

// Gradient of the sum of all rows' losses: softmax - onehot.
inline Doubles cross_entropy_backward(const Doubles& logits,
                                      const std::vector<std::int32_t>& targets,
                                      std::int64_t vocabulary) {
  Doubles dlogits = zeros<double>(std::int64_t(logits.size()));
  for (std::size_t r = 0; r < targets.size(); ++r) {
    if (targets[r] < 0) continue;
    const double* row = &logits[r * at(vocabulary)];
    const double largest = *std::max_element(row, row + vocabulary);
    double sum = 0;
    for (std::int64_t i = 0; i < vocabulary; ++i) sum += std::exp(row[i] - largest);
    for (std::int64_t i = 0; i < vocabulary; ++i)
      dlogits[r * at(vocabulary) + at(i)] =
          std::exp(row[i] - largest) / sum - (i == targets[r] ? 1.0 : 0.0);
  }
  return dlogits;
}

}  // namespace bitnet::reference
