// SPDX-License-Identifier: MIT
// The table of fp32 kernels of one instruction set. Every table computes the same bits as the
// scalar one, because each kernel has one fixed order of operations. Sums over a row are in terms of
// 16 virtual lanes: element i belongs to lane i % 16, a lane takes its elements in ascending order,
// and the lanes are joined by the tree l += l+8, l += l+4, l += l+2, l += l+1; a tail counts as
// padded with zeros. Attention's sums over head_dim and over keys are single ascending chains.
// Products are added by explicit fma. Nothing is contracted or reordered by the compiler. Only types and declarations here: ISA
// files must share no inline code.
#pragma once

#include <cstdint>

#include "core/cpu/cpu_isa.h"

namespace bitnet::cpu {

inline constexpr std::int64_t kAttentionTile = 64;  // keys, or queries, that are worked on together
inline constexpr std::int64_t kMaxHeadDim = 256;    // bounds the tiles on the stack

// Queries of one head against the keys and values of their head. Row i of q starts at q + i *
// q_stride, and so on.
struct AttentionForward {
  const float* q;    // [queries, head_dim]
  const float* k;    // [first_position + queries, head_dim]
  const float* v;    // as k
  float* out;        // as q, with q's stride
  float* logsumexp;  // [queries], or null
  std::int64_t q_stride, kv_stride;
  std::int64_t queries;         // 1 to kAttentionTile
  std::int64_t first_position;  // query i sees the keys 0 .. first_position + i
  std::int64_t head_dim;        // a multiple of 16, at most kMaxHeadDim
  float scale;                  // 1 / sqrt(head_dim)
};

// All query heads that share one key/value head; head i is found at + i * head_dim, its logsumexp
// at + i * tokens.
struct AttentionBackward {
  const float *q, *out, *dout;  // [tokens, heads, head_dim]
  float* dq;                    // as q
  const float *k, *v;           // [tokens, head_dim]
  float *dk, *dv;               // as k
  const float* logsumexp;       // [heads, tokens]
  std::int64_t q_stride, kv_stride;
  std::int64_t tokens, heads, head_dim;
  float scale;
};

// Backend::adamw's factors, computed in double and rounded once.
struct AdamWFactors {
  float grad_scale;
  float decay;  // 1 - lr * weight_decay
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float inv_sqrt_bias2;  // 1 / sqrt(1 - beta2^t)
  float eps;
  float step_size;  // lr / (1 - beta1^t)
};

struct ActivationKernels {
  // y = activation(gate) * up; `up` may be null (1). Outputs may be inputs.
  void (*forward)(const float* gate, const float* up, float* y, std::int64_t n);
  // dgate = (dy * up) * activation'(gate), dup = dy * activation(gate); `up` and `dup` null
  // together.
  void (*backward)(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                   std::int64_t n);
};

struct FloatKernels {
  const char* name;

  // y[t * y_stride + n] = dot(x_t, w_n); the rows of x and w are `inputs` long.
  void (*linear)(const float* x, const float* w, float* y, std::int64_t y_stride, std::int64_t rows,
                 std::int64_t outputs, std::int64_t inputs);

  // Rows of n. y = ((x - mean) * inv_std) * gain, stats [rows, 2] = mean, inv_std. Without `layer`
  // the mean is 0. `gain` may be null.
  void (*norm)(bool layer, const float* x, const float* gain, float eps, std::int64_t rows,
               std::int64_t n, float* y, float* stats);
  // With x̂ = (x - mean) * inv_std and g = dy * gain: dx = inv_std * (g - x̂ * mean(g x̂) - [layer]
  // mean(g)) and, row after row, dgain += dy * x̂ unless null. dx may be dy.
  void (*norm_backward)(bool layer, const float* x, const float* gain, const float* stats,
                        const float* dy, std::int64_t rows, std::int64_t n, float* dx,
                        float* dgain);

  // One token, in place: x [heads, head_dim]; `angles` holds head_dim / 2 cosines, then as many
  // sines; sign = -1 turns back.
  void (*rope)(float* x, const float* angles, std::int64_t heads, std::int64_t head_dim,
               float sign);

  // Online softmax over tiles of kAttentionTile keys that start at multiples of kAttentionTile. The
  // order of operations for a query depends on its position alone, so prefill and decode give the
  // same bits.
  void (*attention)(const AttentionForward& task);
  void (*attention_backward)(const AttentionBackward& task);

  ActivationKernels silu, relu2, gelu;

  void (*add)(const float* a, const float* b, float* y, std::int64_t n);

  // One row: returns logsumexp(logits) - logits[target], and stores scale * (softmax - onehot)
  // unless dlogits is null. dlogits may be logits.
  float (*cross_entropy)(const float* logits, std::int64_t n, std::int64_t target, float scale,
                         float* dlogits);

  void (*adamw)(const AdamWFactors& factors, const float* gradient, float* parameter, float* m,
                float* v, std::int64_t n);

  // In double, by lanes.
  double (*sum)(const float* x, std::int64_t n);
  double (*sum_of_squares)(const float* x, std::int64_t n);

  // y = exp(x): exported for its own tests; the other kernels use it inline. 0 below kExpUnderflow,
  // at most 1 ulp off otherwise.
  void (*exp)(const float* x, float* y, std::int64_t n);
};

// One per file; only those of this architecture are linked in.
extern const FloatKernels kFloatScalar;
extern const FloatKernels kFloatAvx2;
extern const FloatKernels kFloatAvx512;
extern const FloatKernels kFloatNeon;

// The table of an available instruction set; nullptr when this build has none for it.
const FloatKernels* float_kernels(Isa isa);

}  // namespace bitnet::cpu
