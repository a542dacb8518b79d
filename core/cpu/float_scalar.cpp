// SPDX-License-Identifier: MIT
// The fp32 kernels in plain C++: the twin that every instruction set's table is compared with, bit
// for bit, and the fallback for processors without a vector table. Written apart from the lane
// kernels, in the order that float_kernels.h lays down.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/cpu/float_kernels.h"
#include "core/cpu/lanes_constants.h"

namespace bitnet::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The 16 lanes of a sum and their tree.
template <typename T>
struct Accumulator {
  T lane[16] = {};
  T total() {
    for (int width = 8; width > 0; width /= 2) {
      for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
    }
    return lane[0];
  }
};

// Padded with zeros to a whole number of vectors, as the lanes see a row.
float dot(const float* a, const float* b, std::int64_t n) {
  Accumulator<float> sum;
  for (std::int64_t i = 0; i < (n + 15) / 16 * 16; ++i) {
    sum.lane[i % 16] = std::fma(i < n ? a[i] : 0.0f, i < n ? b[i] : 0.0f, sum.lane[i % 16]);
  }
  return sum.total();
}

float largest_of(float a, float b) { return a > b ? a : b; }  // b when a is NaN, as in the lanes

float largest(const float* x, std::int64_t n) {
  float lane[16];
  std::fill(lane, lane + 16, -kInfinity);
  for (std::int64_t i = 0; i < (n + 15) / 16 * 16; ++i) {
    lane[i % 16] = largest_of(lane[i % 16], i < n ? x[i] : -kInfinity);
  }
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lane[l] = largest_of(lane[l], lane[l + width]);
  }
  return lane[0];
}

float exponential(float x) {
  if (x < kExpUnderflow) return 0.0f;
  if (x > kExpOverflow) return kInfinity;
  if (std::isnan(x)) return x;
  const float n = std::nearbyint(x * kLog2E);
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  float p = kExpPolynomial[4];
  for (int i = 3; i >= 0; --i) p = std::fma(p, r, kExpPolynomial[i]);
  p = std::fma(p * r, r, r) + 1.0f;
  return std::ldexp(2.0f * p, static_cast<int>(n) - 1);
}

struct Normal {
  float cdf, density;
};

Normal normal(float x) {
  const float a = largest_of(x, 0.0f - x);
  const float t = 1.0f / std::fma(kMillsShift, a, 1.0f);
  float p = kMillsPolynomial[9];
  for (int i = 8; i >= 0; --i) p = std::fma(p, t, kMillsPolynomial[i]);
  const float e = exponential(-0.5f * (a * a));
  const float tail = e * (t * p);
  return {x < 0.0f ? tail : 1.0f - tail, e * kInvSqrt2Pi};
}

float sigmoid(float x) { return 1.0f / (1.0f + exponential(0.0f - x)); }

struct ValueAndDerivative {
  float value, derivative;
};

ValueAndDerivative silu_at(float x) {
  const float s = sigmoid(x);
  return {x * s, std::fma(x * s, 1.0f - s, s)};
}

ValueAndDerivative relu2_at(float x) {
  const float r = x < 0.0f ? 0.0f : x;
  return {r * r, r + r};
}

ValueAndDerivative gelu_at(float x) {
  const Normal at = normal(x);
  return {x * at.cdf, std::fma(x, at.density, at.cdf)};
}

void linear(const float* x, const float* w, float* y, std::int64_t y_stride, std::int64_t rows,
            std::int64_t outputs, std::int64_t inputs) {
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t n = 0; n < outputs; ++n) {
      y[t * y_stride + n] = dot(x + t * inputs, w + n * inputs, inputs);
    }
  }
}

void norm(bool layer, const float* x, const float* gain, float eps, std::int64_t rows,
          std::int64_t n, float* y, float* stats) {
  const float count = static_cast<float>(n);
  for (std::int64_t row = 0; row < rows; ++row, x += n, y += n, stats += 2) {
    float mean = 0.0f;
    if (layer) {
      Accumulator<float> sum;
      for (std::int64_t i = 0; i < n; ++i) sum.lane[i % 16] += x[i];
      mean = sum.total() / count;
    }
    Accumulator<float> squares;
    for (std::int64_t i = 0; i < n; ++i) {
      squares.lane[i % 16] = std::fma(x[i] - mean, x[i] - mean, squares.lane[i % 16]);
    }
    const float inv_std = 1.0f / std::sqrt(squares.total() / count + eps);
    for (std::int64_t i = 0; i < n; ++i) {
      const float normalized = (x[i] - mean) * inv_std;
      y[i] = gain == nullptr ? normalized : normalized * gain[i];
    }
    stats[0] = mean;
    stats[1] = inv_std;
  }
}

void norm_backward(bool layer, const float* x, const float* gain, const float* stats,
                   const float* dy, std::int64_t rows, std::int64_t n, float* dx, float* dgain) {
  const float count = static_cast<float>(n);
  for (std::int64_t row = 0; row < rows; ++row, x += n, dy += n, dx += n, stats += 2) {
    const float mean = stats[0], inv_std = stats[1];
    Accumulator<float> sum, product_sum;
    for (std::int64_t i = 0; i < n; ++i) {
      const float normalized = (x[i] - mean) * inv_std;
      const float g = gain == nullptr ? dy[i] : dy[i] * gain[i];
      sum.lane[i % 16] += g;
      product_sum.lane[i % 16] = std::fma(g, normalized, product_sum.lane[i % 16]);
      if (dgain != nullptr) dgain[i] = std::fma(dy[i], normalized, dgain[i]);
    }
    const float g_mean = layer ? sum.total() / count : 0.0f;
    const float product_mean = product_sum.total() / count;
    for (std::int64_t i = 0; i < n; ++i) {
      const float normalized = (x[i] - mean) * inv_std;
      const float g = gain == nullptr ? dy[i] : dy[i] * gain[i];
      dx[i] = inv_std * ((g - normalized * product_mean) - g_mean);
    }
  }
}

void rope(float* x, const float* angles, std::int64_t heads, std::int64_t head_dim, float sign) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t head = 0; head < heads; ++head, x += head_dim) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float cosine = angles[i], sine = sign * angles[half + i];
      const float x0 = x[i], x1 = x[half + i];
      x[i] = std::fma(x0, cosine, 0.0f - x1 * sine);
      x[half + i] = std::fma(x1, cosine, x0 * sine);
    }
  }
}

// One query against keys 0 .. position. The scores of one tile at a time, as in the lanes.
void attend(const AttentionForward& a, std::int64_t query) {
  const float* q = a.q + query * a.q_stride;
  float* out = a.out + query * a.q_stride;
  std::fill(out, out + a.head_dim, 0.0f);
  float peak = -kInfinity;
  Accumulator<float> sum;
  const std::int64_t end = a.first_position + query + 1;
  for (std::int64_t first = 0; first < end; first += kAttentionTile) {
    const std::int64_t count = std::min(kAttentionTile, end - first);
    float p[kAttentionTile];
    for (std::int64_t j = 0; j < count; ++j) {
      const float* k = a.k + (first + j) * a.kv_stride;
      float score = 0.0f;
      for (std::int64_t e = 0; e < a.head_dim; ++e) score = std::fma(q[e], k[e], score);
      p[j] = score * a.scale;
    }
    const float new_peak = largest_of(peak, largest(p, count));
    const float correction = exponential(peak - new_peak);
    peak = new_peak;
    for (float& lane : sum.lane) lane *= correction;
    for (std::int64_t j = 0; j < count; ++j) {
      p[j] = exponential(p[j] - peak);
      sum.lane[j % 16] += p[j];
    }
    for (std::int64_t e = 0; e < a.head_dim; ++e) {
      out[e] *= correction;
      for (std::int64_t j = 0; j < count; ++j) {
        out[e] = std::fma(p[j], a.v[(first + j) * a.kv_stride + e], out[e]);
      }
    }
  }
  const float total = sum.total();
  for (std::int64_t e = 0; e < a.head_dim; ++e) out[e] /= total;
  if (a.logsumexp != nullptr) {
    a.logsumexp[query] =
        static_cast<float>(static_cast<double>(peak) + std::log(static_cast<double>(total)));
  }
}

void attention(const AttentionForward& a) {
  for (std::int64_t query = 0; query < a.queries; ++query) attend(a, query);
}

// Adds one query's part for the keys first .. end - 1 of one tile, which it all sees. Queries come
// in ascending order within a tile, which fixes the order of the sums over queries (dk, dv) and
// over keys (dq).
void attend_backward(const AttentionBackward& a, std::int64_t head, std::int64_t query,
                     std::int64_t first, std::int64_t end) {
  const std::int64_t at = query * a.q_stride + head * a.head_dim;
  const float *q = a.q + at, *dout = a.dout + at;
  const float delta = dot(dout, a.out + at, a.head_dim);
  const float logsumexp = a.logsumexp[head * a.tokens + query];
  for (std::int64_t key = first; key < end; ++key) {
    const float *k = a.k + key * a.kv_stride, *v = a.v + key * a.kv_stride;
    float score = 0.0f, dp = 0.0f;
    for (std::int64_t e = 0; e < a.head_dim; ++e) {
      score = std::fma(q[e], k[e], score);
      dp = std::fma(dout[e], v[e], dp);
    }
    const float p = exponential(std::fma(score, a.scale, -logsumexp));
    const float ds = (p * (dp - delta)) * a.scale;
    float *dk = a.dk + key * a.kv_stride, *dv = a.dv + key * a.kv_stride;
    for (std::int64_t e = 0; e < a.head_dim; ++e) {
      dv[e] = std::fma(p, dout[e], dv[e]);
      dk[e] = std::fma(ds, q[e], dk[e]);
      a.dq[at + e] = std::fma(ds, k[e], a.dq[at + e]);
    }
  }
}

void attention_backward(const AttentionBackward& a) {
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    std::fill_n(a.dq + t * a.q_stride, a.heads * a.head_dim, 0.0f);
    std::fill_n(a.dk + t * a.kv_stride, a.head_dim, 0.0f);
    std::fill_n(a.dv + t * a.kv_stride, a.head_dim, 0.0f);
  }
  for (std::int64_t first = 0; first < a.tokens; first += kAttentionTile) {
    const std::int64_t end = std::min(a.tokens, first + kAttentionTile);
    for (std::int64_t head = 0; head < a.heads; ++head) {
      for (std::int64_t query = first; query < a.tokens; ++query) {
        attend_backward(a, head, query, first, std::min(end, query + 1));
      }
    }
  }
}

template <ValueAndDerivative (*kActivation)(float)>
void activation_forward(const float* gate, const float* up, float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float value = kActivation(gate[i]).value;
    y[i] = up == nullptr ? value : value * up[i];
  }
}

template <ValueAndDerivative (*kActivation)(float)>
void activation_backward(const float* gate, const float* up, const float* dy, float* dgate,
                         float* dup, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const auto [value, derivative] = kActivation(gate[i]);
    const float d = dy[i];
    dgate[i] = (up == nullptr ? d : d * up[i]) * derivative;
    if (up != nullptr) dup[i] = d * value;
  }
}

void add(const float* a, const float* b, float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

float cross_entropy(const float* logits, std::int64_t n, std::int64_t target, float scale,
                    float* dlogits) {
  const float peak = largest(logits, n);
  Accumulator<float> sum;
  for (std::int64_t i = 0; i < n; ++i) sum.lane[i % 16] += exponential(logits[i] - peak);
  const float total = sum.total();
  const double loss = std::log(static_cast<double>(total)) +
                      (static_cast<double>(peak) - static_cast<double>(logits[target]));
  if (dlogits != nullptr) {
    const float factor = scale / total;
    for (std::int64_t i = 0; i < n; ++i) dlogits[i] = exponential(logits[i] - peak) * factor;
    dlogits[target] -= scale;
  }
  return static_cast<float>(loss);
}

void adamw(const AdamWFactors& f, const float* gradient, float* parameter, float* m, float* v,
           std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = gradient[i] * f.grad_scale;
    m[i] = std::fma(f.one_minus_beta1, g - m[i], m[i]);
    v[i] = std::fma(f.one_minus_beta2 * g, g, v[i] * f.beta2);
    const float denominator = std::fma(std::sqrt(v[i]), f.inv_sqrt_bias2, f.eps);
    parameter[i] = std::fma(-f.step_size, m[i] / denominator, parameter[i] * f.decay);
  }
}

double sum(const float* x, std::int64_t n) {
  Accumulator<double> total;
  for (std::int64_t i = 0; i < n; ++i) total.lane[i % 16] += static_cast<double>(x[i]);
  return total.total();
}

double sum_of_squares(const float* x, std::int64_t n) {
  Accumulator<double> total;
  for (std::int64_t i = 0; i < n; ++i) {
    total.lane[i % 16] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  return total.total();
}

void exp_row(const float* x, float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = exponential(x[i]);
}

}  // namespace

constinit const FloatKernels kFloatScalar = {
    .name = "scalar",
    .linear = linear,
    .norm = norm,
    .norm_backward = norm_backward,
    .rope = rope,
    .attention = attention,
    .attention_backward = attention_backward,
    .silu = {activation_forward<silu_at>, activation_backward<silu_at>},
    .relu2 = {activation_forward<relu2_at>, activation_backward<relu2_at>},
    .gelu = {activation_forward<gelu_at>, activation_backward<gelu_at>},
    .add = add,
    .cross_entropy = cross_entropy,
    .adamw = adamw,
    .sum = sum,
    .sum_of_squares = sum_of_squares,
    .exp = exp_row,
};

const FloatKernels* float_kernels(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return &kFloatScalar;
#if defined(__x86_64__)
    case Isa::avx2:
      return &kFloatAvx2;
    case Isa::avx512vnni:
      return &kFloatAvx512;
#elif defined(__aarch64__)
    case Isa::neon:
      return &kFloatNeon;
#endif
    default:
      return nullptr;
  }
}

}  // namespace bitnet::cpu
