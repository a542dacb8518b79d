// SPDX-License-Identifier: MIT
// The operations of core/backend/backend.h as plain loops over any number type: what every backend
// is compared with. Written from the papers; shape letters as in backend.h. Nothing here shares
// code with core/.
#pragma once

#include <algorithm>
#include <vector>

#include "core/backend/backend.h"
#include "tests/reference/number.h"

namespace bitnet::reference {

template <typename T>
struct NormStats {
  T mean{}, inv_std{};
};

// Mean and inverse deviation of one row; the mean of RMSNorm is 0 by definition.
template <typename T>
NormStats<T> norm_stats(NormKind kind, const T* x, std::int64_t width, double eps) {
  T mean(0), square(0);
  if (kind == NormKind::layer) {
    for (std::int64_t i = 0; i < width; ++i) mean += x[i];
    mean /= double(width);
  }
  for (std::int64_t i = 0; i < width; ++i) square += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0 / std::sqrt(square / double(width) + eps)};
}

template <typename T>
std::vector<T> norm(NormKind kind, const std::vector<T>& x, const std::vector<T>& gain, double eps,
                    std::int64_t rows, std::int64_t width) {
  auto y = zeros<T>(rows * width);
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto stats = norm_stats(kind, &x[at(r * width)], width, eps);
    for (std::int64_t i = 0; i < width; ++i) {
      const T centred = (x[at(r * width + i)] - stats.mean) * stats.inv_std;
      y[at(r * width + i)] = gain.empty() ? centred : centred * gain[at(i)];
    }
  }
  return y;
}

// y = x wᵀ; x [rows, K], w [N, K].
template <typename T>
std::vector<T> linear(const std::vector<T>& x, const std::vector<T>& w, std::int64_t rows,
                      std::int64_t outputs, std::int64_t inputs) {
  auto y = zeros<T>(rows * outputs);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t n = 0; n < outputs; ++n) {
      T sum(0);
      for (std::int64_t k = 0; k < inputs; ++k)
        sum += x[at(r * inputs + k)] * w[at(n * inputs + k)];
      y[at(r * outputs + n)] = sum;
    }
  return y;
}

// The pair (x_i, x_{i + E/2}) of a head turns by the angle position · theta^(-2 i / E), RoFormer
// Eq. 15 in the half-split order. x is [B, T, heads, E].
template <typename T>
std::vector<T> rope(const std::vector<T>& x, std::int64_t batch, std::int64_t tokens,
                    std::int64_t heads, std::int64_t head_dim, double theta,
                    std::int64_t first_position, RopeDirection direction) {
  auto y = x;
  const std::int64_t half = head_dim / 2;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t i = 0; i < half; ++i) {
          const double frequency = std::pow(theta, -2.0 * double(i) / double(head_dim));
          const double turn = double(first_position + t) * frequency;
          const double angle = direction == RopeDirection::forward ? turn : -turn;
          const std::size_t p = at(((b * tokens + t) * heads + h) * head_dim + i), q = p + at(half);
          y[p] = x[p] * std::cos(angle) - x[q] * std::sin(angle);
          y[q] = x[q] * std::cos(angle) + x[p] * std::sin(angle);
        }
  return y;
}

// Probabilities [B, H, T, S] of causal attention; 0 where the mask hides the key.
template <typename T>
std::vector<T> attention_probabilities(const AttentionShape& s, const std::vector<T>& q,
                                       const std::vector<T>& k) {
  auto p = zeros<T>(s.batch * s.heads * s.queries * s.keys);
  const double scale = 1.0 / std::sqrt(double(s.head_dim));
  for (std::int64_t b = 0; b < s.batch; ++b)
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t t = 0; t < s.queries; ++t) {
        const std::int64_t g = h / (s.heads / s.kv_heads), seen = s.first_position + t + 1;
        T* row = &p[at(((b * s.heads + h) * s.queries + t) * s.keys)];
        double largest = -INFINITY;
        for (std::int64_t j = 0; j < seen; ++j) {
          T dot(0);
          for (std::int64_t e = 0; e < s.head_dim; ++e)
            dot += q[at(((b * s.queries + t) * s.heads + h) * s.head_dim + e)] *
                   k[at(((b * s.keys + j) * s.kv_heads + g) * s.head_dim + e)];
          row[j] = dot * scale;
          largest = std::max(largest, real_part(row[j]));
        }
        T sum(0);
        for (std::int64_t j = 0; j < seen; ++j) sum += row[j] = std::exp(row[j] - largest);
        for (std::int64_t j = 0; j < seen; ++j) row[j] /= sum;
      }
  return p;
}

template <typename T>
std::vector<T> attention(const AttentionShape& s, const std::vector<T>& q, const std::vector<T>& k,
                         const std::vector<T>& v) {
  const auto p = attention_probabilities(s, q, k);
  auto out = zeros<T>(s.batch * s.queries * s.heads * s.head_dim);
  for (std::int64_t b = 0; b < s.batch; ++b)
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t t = 0; t < s.queries; ++t) {
        const std::int64_t g = h / (s.heads / s.kv_heads);
        for (std::int64_t j = 0; j <= s.first_position + t; ++j)
          for (std::int64_t e = 0; e < s.head_dim; ++e)
            out[at(((b * s.queries + t) * s.heads + h) * s.head_dim + e)] +=
                p[at(((b * s.heads + h) * s.queries + t) * s.keys + j)] *
                v[at(((b * s.keys + j) * s.kv_heads + g) * s.head_dim + e)];
      }
  return out;
}

template <typename T>
T activate(Activation activation, const T& x) {
  switch (activation) {
    case Activation::silu:
      return x / (1.0 + std::exp(-x));
    case Activation::relu2:
      return real_part(x) > 0 ? x * x : T(0);
    case Activation::gelu:
      return x * 0.5 * (1.0 + erf(x / std::numbers::sqrt2));
  }
  return T(NAN);
}

// activation(gate) · up, or activation(gate) without up.
template <typename T>
std::vector<T> gated_activation(Activation activation, const std::vector<T>& gate,
                                const std::vector<T>& up) {
  auto y = gate;
  for (std::size_t i = 0; i < y.size(); ++i)
    y[i] = up.empty() ? activate(activation, gate[i]) : activate(activation, gate[i]) * up[i];
  return y;
}

// Loss of each row in nats; a target of -1 gives 0.
template <typename T>
std::vector<T> cross_entropy(const std::vector<T>& logits, const std::vector<std::int32_t>& targets,
                             std::int64_t vocabulary) {
  std::vector<T> loss(targets.size(), T(0));
  for (std::size_t r = 0; r < targets.size(); ++r) {
    if (targets[r] < 0) continue;
    const T* row = &logits[r * at(vocabulary)];
    double largest = -INFINITY;
    for (std::int64_t i = 0; i < vocabulary; ++i) largest = std::max(largest, real_part(row[i]));
    T sum(0);
    for (std::int64_t i = 0; i < vocabulary; ++i) sum += std::exp(row[i] - largest);
    loss[r] = std::log(sum) + largest - row[targets[r]];
  }
  return loss;
}

}  // namespace bitnet::reference
