// SPDX-License-Identifier: MIT
// The fp32 kernels in plain C++: the twin that every instruction set's table is compared with, bit
// for bit, and the fallback for processors without a vector table. Written apart from the lane
// kernels, in the order that float_kernels.h lays down.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/base/random.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/lanes_constants.h"

namespace bitnet::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The lanes of a sum and their tree.
template <typename T, int kLanes = 16>
struct Accumulator {
  T lane[kLanes] = {};
  T total() {
    for (int width = kLanes / 2; width > 0; width /= 2) {
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

using NormSum = Accumulator<float, 64>;

// x_hat = (x - mean) * inv_std
struct Statistics {
  float mean, inv_std;
  float normalized(float x) const { return (x - mean) * inv_std; }
};

Statistics statistics_of(const RowNorm& norm, const float* x, std::int64_t n) {
  const float count = static_cast<float>(n);
  float mean = 0.0f;
  if (norm.layer) {
    NormSum sum;
    for (std::int64_t i = 0; i < n; ++i) sum.lane[i % 64] += x[i];
    mean = sum.total() / count;
  }
  NormSum squares;
  for (std::int64_t i = 0; i < n; ++i) {
    squares.lane[i % 64] = std::fma(x[i] - mean, x[i] - mean, squares.lane[i % 64]);
  }
  return {mean, 1.0f / std::sqrt(squares.total() / count + norm.eps)};
}

float scaled_by(const float* gain, std::int64_t i, float x) {
  return gain == nullptr ? x : x * gain[i];
}

void norm(const RowNorm& norm, const float* x, std::int64_t rows, std::int64_t n, float* y,
          float* stats) {
  for (std::int64_t row = 0; row < rows; ++row, x += n, y += n, stats += 2) {
    const Statistics s = statistics_of(norm, x, n);
    for (std::int64_t i = 0; i < n; ++i) y[i] = scaled_by(norm.gain, i, s.normalized(x[i]));
    stats[0] = s.mean;
    stats[1] = s.inv_std;
  }
}

// quantize_token() of value(0), value(1), …; see quantize_row of the integer kernels.
template <typename Value>
float quantize_values(std::int64_t n, const Value& value, std::int8_t* codes) {
  std::uint32_t absmax_bits = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    absmax_bits = std::max(absmax_bits, std::bit_cast<std::uint32_t>(std::fabs(value(i))));
  }
  const auto absmax = std::bit_cast<float>(absmax_bits);
  if (!(absmax < kInfinity)) {
    std::fill_n(codes, n, std::int8_t{0});
    return absmax / kActivationMax;
  }
  const float bounded = std::max(absmax, kScaleEps), inv_scale = kActivationMax / bounded;
  for (std::int64_t i = 0; i < n; ++i) {
    codes[i] = static_cast<std::int8_t>(std::lrint(value(i) * inv_scale));
  }
  return bounded / kActivationMax;
}

void norm_quantize(const RowNorm& norm, const float* x, std::int64_t rows, std::int64_t n,
                   std::int8_t* codes, float* act_scale, float* stats) {
  for (std::int64_t row = 0; row < rows; ++row, x += n, codes += n, stats += 2) {
    const Statistics s = statistics_of(norm, x, n);
    act_scale[row] = quantize_values(
        n, [&](std::int64_t i) { return scaled_by(norm.gain, i, s.normalized(x[i])); }, codes);
    stats[0] = s.mean;
    stats[1] = s.inv_std;
  }
}

void norm_backward(const RowNorm& norm, const float* x, const float* stats, const float* dy,
                   std::int64_t rows, std::int64_t n, float* dx, bool accumulate, float* dgain) {
  const float count = static_cast<float>(n);
  for (std::int64_t row = 0; row < rows; ++row, x += n, dy += n, dx += n, stats += 2) {
    const Statistics s = {stats[0], stats[1]};
    NormSum sum, product_sum;
    for (std::int64_t i = 0; i < n; ++i) {
      const float x_hat = s.normalized(x[i]), g = scaled_by(norm.gain, i, dy[i]);
      sum.lane[i % 64] += g;
      product_sum.lane[i % 64] = std::fma(g, x_hat, product_sum.lane[i % 64]);
      if (dgain != nullptr) dgain[i] = std::fma(dy[i], x_hat, dgain[i]);
    }
    const float g_mean = norm.layer ? sum.total() / count : 0.0f;
    const float product_mean = product_sum.total() / count;
    for (std::int64_t i = 0; i < n; ++i) {
      const float g = scaled_by(norm.gain, i, dy[i]);
      const float d = s.inv_std * ((g - s.normalized(x[i]) * product_mean) - g_mean);
      dx[i] = accumulate ? dx[i] + d : d;
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

float exponential2(float x) {
  if (x < kExp2Underflow) return 0.0f;
  const float shifted = x + kExp2Shift;
  const float r = x - (shifted - kExp2Shift);
  float p = kExp2Polynomial[4];
  for (int i = 3; i >= 0; --i) p = std::fma(p, r, kExp2Polynomial[i]);
  return std::fma(p, r, 1.0f) * std::bit_cast<float>(std::bit_cast<std::uint32_t>(shifted) << 23);
}

float widened(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 31u,
                      fraction = half & 1023u;
  if (exponent == 0) {  // zero or subnormal
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 31) {
    const std::uint32_t quiet = fraction != 0 ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7F800000u | quiet | fraction << 13);
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

std::uint16_t narrowed(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x), magnitude = bits & 0x7FFFFFFFu;
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  std::uint32_t half;
  if (magnitude > 0x7F800000u) {  // NaN
    half = 0x7E00u | (magnitude >> 13 & 0x3FFu);
  } else if (magnitude >= 0x47800000u) {  // 2^16 and more
    half = 0x7C00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24
    half = static_cast<std::uint32_t>(std::nearbyint(std::bit_cast<float>(magnitude) * 0x1p24f));
  } else {  // the carry of rounding may reach the exponent, and from 65520 on infinity
    half = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}

void widen(const std::uint16_t* x, float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = widened(x[i]);
}

void narrow(const float* x, std::uint16_t* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = narrowed(x[i]);
}

// Element `index` of keys or values.
float element(const void* data, bool half, std::int64_t index) {
  return half ? widened(static_cast<const std::uint16_t*>(data)[index])
              : static_cast<const float*>(data)[index];
}

// One query against keys 0 .. position, a tile of scores at a time.
void attend(const AttentionToken& a, bool interleaved, const float* q, float* out,
            float* logsumexp) {
  std::fill(out, out + a.head_dim, 0.0f);
  const float scale = a.scale * kLog2E;
  float peak = -kInfinity, total = 0.0f;
  for (std::int64_t first = 0; first <= a.position; first += kAttentionTile) {
    const std::int64_t count = std::min(kAttentionTile, a.position + 1 - first);
    float p[kAttentionTile] = {};
    for (std::int64_t j = 0; j < count; ++j) {
      float score = 0.0f;
      for (std::int64_t e = 0; e < a.head_dim; ++e) {
        const std::int64_t key = first + j, within = key % kInterleavedKeys;
        const std::int64_t at = interleaved
                                    ? (key - within) * a.kv_stride + e * kInterleavedKeys + within
                                    : key * a.kv_stride + e;
        score = std::fma(q[e], element(a.k, a.half, at), score);
      }
      p[j] = score;
    }
    const float raised = largest_of(peak, largest(p, count) * scale);
    const float carry = exponential2(peak - raised);
    peak = raised;
    total *= carry;
    for (std::int64_t group = 0; group < count; group += 16) {
      Accumulator<float> sum;
      for (std::int64_t j = group; j < std::min(group + 16, count); ++j) {
        p[j] = exponential2(std::fma(p[j], scale, 0.0f - peak));
        sum.lane[j % 16] = p[j];
      }
      total += sum.total();
    }
    for (std::int64_t e = 0; e < a.head_dim; ++e) {
      out[e] *= carry;
      for (std::int64_t j = 0; j < count; ++j) {
        out[e] = std::fma(p[j], element(a.v, a.half, (first + j) * a.kv_stride + e), out[e]);
      }
    }
  }
  for (std::int64_t e = 0; e < a.head_dim; ++e) out[e] /= total;
  constexpr double kLn2 = 0.693147180559945309417;
  if (logsumexp != nullptr) {
    *logsumexp =
        static_cast<float>(static_cast<double>(peak) * kLn2 + std::log(static_cast<double>(total)));
  }
}

void attention_token(const AttentionToken& a) {
  for (std::int64_t h = 0; h < a.heads; ++h) {
    attend(a, true, a.q + h * a.head_dim, a.out + h * a.head_dim,
           a.logsumexp == nullptr ? nullptr : a.logsumexp + h * a.logsumexp_stride);
  }
}

void attention_block(const AttentionBlock& a) {
  for (std::int64_t i = 0; i < a.queries; ++i) {
    const AttentionToken token{.q = a.q + i * a.q_stride,
                               .k = a.k,
                               .v = a.v,
                               .half = a.half,
                               .out = a.out + i * a.q_stride,
                               .logsumexp = a.logsumexp == nullptr ? nullptr : a.logsumexp + i,
                               .logsumexp_stride = 0,
                               .kv_stride = a.kv_stride,
                               .heads = 1,
                               .position = a.first_position + i,
                               .head_dim = a.head_dim,
                               .scale = a.scale};
    attend(token, a.interleaved, token.q, token.out, token.logsumexp);
  }
}

void interleave_keys(const float* k, std::int64_t k_stride, std::int64_t count,
                     std::int64_t head_dim, std::int64_t first, bool half, void* interleaved) {
  for (std::int64_t j = 0; j < count; ++j) {
    for (std::int64_t e = 0; e < head_dim; ++e) {
      const std::int64_t place = e * kInterleavedKeys + first + j;
      const float x = k[j * k_stride + e];
      if (half) {
        static_cast<std::uint16_t*>(interleaved)[place] = narrowed(x);
      } else {
        static_cast<float*>(interleaved)[place] = x;
      }
    }
  }
}

// Adds one query's part for the keys first .. end - 1 of one tile, which it all sees. Queries come
// in ascending order within a tile, which fixes the order of the sums over queries (dk, dv) and
// over keys (dq).
void attend_backward(const AttentionBackward& a, std::int64_t head, std::int64_t query,
                     std::int64_t first, std::int64_t end) {
  const std::int64_t at = query * a.q_stride + head * a.head_dim;
  const float *q = a.q + at, *dout = a.dout + at;
  const float delta = a.delta[head * a.tokens + query];
  const float logsumexp = a.logsumexp[head * a.tokens + query];
  for (std::int64_t key = first; key < end; ++key) {
    const float *k = a.k + key * a.kv_stride, *v = a.v + key * a.kv_stride;
    float score = 0.0f, dp = 0.0f;
    for (std::int64_t e = 0; e < a.head_dim; ++e) {
      score = std::fma(q[e], k[e], score);
      dp = std::fma(dout[e], v[e], dp);
    }
    const float p = exponential2(std::fma(score, a.scale * kLog2E, 0.0f - logsumexp * kLog2E));
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
    for (std::int64_t head = 0; head < a.heads; ++head) {
      const std::int64_t at = t * a.q_stride + head * a.head_dim;
      a.delta[head * a.tokens + t] = dot(a.dout + at, a.out + at, a.head_dim);
    }
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

using ActivationAt = ValueAndDerivative (*)(float);

template <ActivationAt kActivation>
void activation_forward(const float* gate, const float* up, float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = scaled_by(up, i, kActivation(gate[i]).value);
}

template <ActivationAt kActivation>
void activation_backward(const float* gate, const float* up, const float* dy, float* dgate,
                         float* dup, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const auto [value, derivative] = kActivation(gate[i]);
    const float d = dy[i];
    dgate[i] = scaled_by(up, i, d) * derivative;
    if (up != nullptr) dup[i] = d * value;
  }
}

template <ActivationAt kActivation>
float activation_quantize(const float* gate, const float* up, std::int64_t n, const RowNorm* norm,
                          float* scratch, std::int8_t* codes, float* stats) {
  activation_forward<kActivation>(gate, up, scratch, n);
  float act_scale = 0.0f;
  if (norm == nullptr) {
    act_scale = quantize_values(
        n, [&](std::int64_t i) { return scratch[i]; }, codes);
  } else {
    norm_quantize(*norm, scratch, 1, n, codes, &act_scale, stats);
  }
  return act_scale;
}

template <ActivationAt kActivation>
void activation_norm_backward(const float* gate, const float* up, std::int64_t n,
                              const RowNorm& norm, const float* stats, const float* dy,
                              float* scratch, float* dgate, float* dup, float* dgain) {
  float *const h = scratch, *const dh = scratch + n;
  activation_forward<kActivation>(gate, up, h, n);
  norm_backward(norm, h, stats, dy, 1, n, dh, false, dgain);
  activation_backward<kActivation>(gate, up, dh, dgate, dup, n);
}

template <ActivationAt kActivation>
constexpr ActivationKernels activation_kernels() {
  return {.forward = activation_forward<kActivation>,
          .backward = activation_backward<kActivation>,
          .quantize = activation_quantize<kActivation>,
          .norm_backward = activation_norm_backward<kActivation>};
}

void add(const float* a, const float* b, float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

void dropout(const DropoutRule& rule, std::uint64_t first_block, const float* x, float* y,
             std::int64_t n) {
  const std::uint64_t key = std::uint64_t{rule.keys[0][1]} << 32 | rule.keys[0][0];
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint64_t block = first_block + static_cast<std::uint64_t>(i) / 4;
    const std::uint32_t word =
        philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                    rule.step, rule.purpose},
                   key)[static_cast<std::size_t>(i) % 4];
    y[i] = word > rule.last_dropped ? x[i] / rule.keep : 0.0f;
  }
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
    .norm_quantize = norm_quantize,
    .norm_backward = norm_backward,
    .rope = rope,
    .attention_block = attention_block,
    .attention_token = attention_token,
    .interleave_keys = interleave_keys,
    .attention_backward = attention_backward,
    .silu = activation_kernels<silu_at>(),
    .relu2 = activation_kernels<relu2_at>(),
    .gelu = activation_kernels<gelu_at>(),
    .add = add,
    .dropout = dropout,
    .cross_entropy = cross_entropy,
    .adamw = adamw,
    .sum = sum,
    .sum_of_squares = sum_of_squares,
    .widen = widen,
    .narrow = narrow,
    .exp = exp_row,
};

void fill_philox_keys(std::uint64_t seed, std::uint32_t keys[10][2]) {
  for (std::uint32_t round = 0; round < 10; ++round) {
    keys[round][0] = static_cast<std::uint32_t>(seed) + round * 0x9E3779B9u;
    keys[round][1] = static_cast<std::uint32_t>(seed >> 32) + round * 0xBB67AE85u;
  }
}

}  // namespace bitnet::cpu
