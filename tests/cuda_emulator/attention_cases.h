// SPDX-License-Identifier: MIT
// Shapes, operands and double references of the attention tests. Scores are in units of log 2, as
// the kernels have them: q stands for log2(e) / sqrt(E) times the model's q.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstddef>
#include <random>
#include <type_traits>
#include <vector>

namespace bitnet::cuda {

struct AttentionCase {
  int batch = 1, queries = 1, heads = 1, kv_heads = 1, head_dim = 16, first = 0;
  int keys() const { return first + queries; }
  std::size_t query_size() const {
    return static_cast<std::size_t>(batch) * queries * heads * head_dim;
  }
  std::size_t key_size() const {
    return static_cast<std::size_t>(batch) * keys() * kv_heads * head_dim;
  }
  std::size_t row_count() const { return static_cast<std::size_t>(batch) * heads * queries; }
  std::size_t query(int b, int t, int h) const {
    return ((static_cast<std::size_t>(b) * queries + t) * heads + h) * head_dim;
  }
  std::size_t key(int b, int j, int h) const {
    return ((static_cast<std::size_t>(b) * keys() + j) * kv_heads + h / (heads / kv_heads)) *
           head_dim;
  }
  std::size_t row(int b, int t, int h) const {
    return (static_cast<std::size_t>(b) * heads + h) * queries + t;
  }
};

// fold(b, t, h) for each row.
template <typename Fold>
void for_each_row(const AttentionCase& c, Fold fold) {
  for (int b = 0; b < c.batch; ++b)
    for (int h = 0; h < c.heads; ++h)
      for (int t = 0; t < c.queries; ++t) fold(b, t, h);
}

inline std::vector<float> random_floats(std::size_t count, unsigned seed, float deviation = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> x(count);
  for (float& v : x) v = normal(random);
  return x;
}

// Floats as the type that a kernel is called with, to nearest even, and back.
inline float widened(float x) { return x; }
inline float widened(__half x) { return __half2float(x); }
inline float widened(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T>
T narrowed(float x) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}
template <typename T>
std::vector<float> widened(const std::vector<T>& x) {
  std::vector<float> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = widened(x[i]);
  return y;
}
template <typename T>
std::vector<T> narrowed(const std::vector<float>& x) {
  std::vector<T> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = narrowed<T>(x[i]);
  return y;
}

struct ExactAttention {
  std::vector<double> p;                // of the row at hand's keys
  std::vector<double> out, logsumexp;   // natural logsumexp
  std::vector<double> out_magnitude;    // sum of p |v|
  std::vector<double> score_magnitude;  // [B, H, T]: largest sum of |q k|
};

// The probabilities of a row into x.p, and what is said above into the rest.
inline void exact_row(const AttentionCase& c, const std::vector<float>& q,
                      const std::vector<float>& k, int b, int t, int h, ExactAttention& x) {
  const int seen = c.first + t + 1;
  x.p.assign(static_cast<std::size_t>(seen), 0.0);
  double largest = -INFINITY, sum = 0, magnitude = 0;
  for (int j = 0; j < seen; ++j) {
    double dot = 0, absolute = 0;
    for (int e = 0; e < c.head_dim; ++e) {
      const double product = double(q[c.query(b, t, h) + e]) * double(k[c.key(b, j, h) + e]);
      dot += product;
      absolute += std::abs(product);
    }
    x.p[static_cast<std::size_t>(j)] = dot;
    largest = std::max(largest, dot);
    magnitude = std::max(magnitude, absolute);
  }
  for (double& p : x.p) sum += p = std::exp2(p - largest);
  for (double& p : x.p) p /= sum;
  x.logsumexp[c.row(b, t, h)] = (largest + std::log2(sum)) * std::log(2.0);
  x.score_magnitude[c.row(b, t, h)] = magnitude;
}

inline ExactAttention exact_attention(const AttentionCase& c, const std::vector<float>& q,
                                      const std::vector<float>& k, const std::vector<float>& v) {
  ExactAttention x;
  x.out.resize(c.query_size());
  x.out_magnitude.resize(c.query_size());
  x.logsumexp.resize(c.row_count());
  x.score_magnitude.resize(c.row_count());
  for_each_row(c, [&](int b, int t, int h) {
    exact_row(c, q, k, b, t, h, x);
    for (int j = 0; j <= c.first + t; ++j) {
      for (int e = 0; e < c.head_dim; ++e) {
        const double product = x.p[static_cast<std::size_t>(j)] * double(v[c.key(b, j, h) + e]);
        x.out[c.query(b, t, h) + e] += product;
        x.out_magnitude[c.query(b, t, h) + e] += std::abs(product);
      }
    }
  });
  return x;
}

}  // namespace bitnet::cuda
