// SPDX-License-Identifier: MIT
// The table of fp32 kernels of one instruction set. Every table computes the same bits as the
// scalar one, because each kernel has one fixed order of operations. Sums over a row are in terms
// of 16 virtual lanes: element i belongs to lane i % 16, a lane takes its elements in ascending
// order, and the lanes are joined by the tree l += l+8, l += l+4, l += l+2, l += l+1; a tail counts
// as padded with zeros. The sums of a norm and of its gradient have 64 lanes in the same way
// (element i: lane i % 64; the tree starts with l += l+32). Attention's sums over head_dim and over
// keys are single ascending chains. Products are added by explicit fma. Nothing is contracted or
// reordered by the compiler. Only types and declarations here: ISA files must share no inline code.
#pragma once

#include <cstdint>

#include "core/backend/adamw_factors.h"
#include "core/cpu/cpu_isa.h"

namespace bitnet::cpu {

inline constexpr std::int64_t kAttentionTile = 64;  // keys, or queries, that are worked on together
inline constexpr std::int64_t kMaxHeadDim = 256;    // bounds the tiles on the stack
inline constexpr std::int64_t kTokenHeads = 16;

// Keys of a cache are interleaved, 16 positions together, so that one token's scores need no shuffling and
// what a head reads is one stretch of memory: element e of key j of a head is
//   k[j / 16 * 16 * kv_stride + e * 16 + j % 16]
// where rows that are not interleaved have it at k[j * kv_stride + e].
inline constexpr std::int64_t kInterleavedKeys = 16;

// A block of one head's queries against the keys and values of their head. Row i of q starts at q +
// i * q_stride, and so on.
struct AttentionBlock {
  const float* q;          // [queries, head_dim]
  const void *k, *v;       // [first_position + queries, head_dim]: floats, or with `half` fp16
  bool half, interleaved;  // interleaved: the keys are those of a cache
  float* out;              // as q, with q's stride
  float* logsumexp;        // [queries], or null
  std::int64_t q_stride, kv_stride;
  // Up to kAttentionTile, and none beyond the tile of positions that the first falls into.
  std::int64_t queries;
  std::int64_t first_position;  // query i sees the keys 0 .. first_position + i
  std::int64_t head_dim;        // a multiple of 16, at most kMaxHeadDim
  float scale;                  // 1 / sqrt(head_dim)
};

// One token's query heads that share a key/value head, in a cache.
struct AttentionToken {
  const float* q;     // [heads, head_dim]
  const void *k, *v;  // [position + 1, head_dim]: floats, or with `half` fp16; the keys interleaved
  bool half;
  float* out;        // as q
  float* logsumexp;  // one of each head, logsumexp_stride apart; or null
  std::int64_t logsumexp_stride, kv_stride;
  std::int64_t heads;     // 1 to kTokenHeads
  std::int64_t position;  // the token sees the keys 0 .. position
  std::int64_t head_dim;
  float scale;
};

// All query heads that share one key/value head; head i is found at + i * head_dim, its logsumexp
// at + i * tokens.
struct AttentionBackward {
  const float *q, *out, *dout;  // [tokens, heads, head_dim]
  float* dq;                    // as q
  const float *k, *v;           // [tokens, head_dim]
  float *dk, *dv;               // as k
  const float* logsumexp;       // [heads, tokens]
  float* delta;                 // [heads, tokens], scratch: dout · out
  std::int64_t q_stride, kv_stride;
  std::int64_t tokens, heads, head_dim;
  float scale;
};

// Backend::norm's arguments. Without `layer` the mean is 0.
struct RowNorm {
  bool layer;
  const float* gain;  // [n] or null
  float eps;
};

// Backend::dropout's arguments: an element is kept where its random word is above last_dropped.
struct DropoutRule {
  std::uint32_t keys[10][2];    // of each round: fill_philox_keys()
  std::uint32_t step, purpose;  // the upper words of the counter
  std::uint32_t last_dropped;
  float keep;  // 1 - p, divides what is kept
};

// The keys of philox4x32()'s ten rounds.
void fill_philox_keys(std::uint64_t seed, std::uint32_t keys[10][2]);

struct ActivationKernels {
  // y = activation(gate) * up; `up` may be null (1). Outputs may be inputs.
  void (*forward)(const float* gate, const float* up, float* y, std::int64_t n);
  // dgate = (dy * up) * activation'(gate), dup = dy * activation(gate); `up` and `dup` null
  // together.
  void (*backward)(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                   std::int64_t n);
  // One row of n: quantize_token() of [norm() of] forward(). norm and stats [2] are null together.
  // scratch: [n]. Returns act_scale.
  float (*quantize)(const float* gate, const float* up, std::int64_t n, const RowNorm* norm,
                    float* scratch, std::int8_t* codes, float* stats);
  // One row of n: norm_backward() of forward(), then backward(). scratch: [2 n].
  void (*norm_backward)(const float* gate, const float* up, std::int64_t n, const RowNorm& norm,
                        const float* stats, const float* dy, float* scratch, float* dgate,
                        float* dup, float* dgain);
};

struct FloatKernels {
  const char* name;

  // y[t * y_stride + n] = dot(x_t, w_n); the rows of x and w are `inputs` long.
  void (*linear)(const float* x, const float* w, float* y, std::int64_t y_stride, std::int64_t rows,
                 std::int64_t outputs, std::int64_t inputs);

  // Rows of n. y = ((x - mean) * inv_std) * gain, stats [rows, 2] = mean, inv_std. y may be x.
  void (*norm)(const RowNorm& norm, const float* x, std::int64_t rows, std::int64_t n, float* y,
               float* stats);
  // quantize_token() of the rows of norm(); act_scale [rows].
  void (*norm_quantize)(const RowNorm& norm, const float* x, std::int64_t rows, std::int64_t n,
                        std::int8_t* codes, float* act_scale, float* stats);
  // With x̂ = (x - mean) * inv_std and g = dy * gain: dx [+]= inv_std * (g - x̂ * mean(g x̂) -
  // [layer] mean(g)) and, row after row, dgain += dy * x̂ unless null. dx may be dy unless it
  // accumulates.
  void (*norm_backward)(const RowNorm& norm, const float* x, const float* stats, const float* dy,
                        std::int64_t rows, std::int64_t n, float* dx, bool accumulate,
                        float* dgain);

  // One token, in place: x [heads, head_dim]; `angles` holds head_dim / 2 cosines, then as many
  // sines; sign = -1 turns back.
  void (*rope)(float* x, const float* angles, std::int64_t heads, std::int64_t head_dim,
               float sign);

  // Online softmax over tiles of kAttentionTile keys that start at multiples of kAttentionTile. A
  // score is one ascending fma chain over head_dim; in powers of two, with scale * log2(e) as one
  // factor, a tile's weights are summed by groups of 16 keys, each by the tree above, and the
  // groups in ascending order; a sum over values is one ascending fma chain over the keys. So the
  // order for a query depends on its position alone: both kernels give the same bits.
  void (*attention_block)(const AttentionBlock& task);
  void (*attention_token)(const AttentionToken& task);
  // Keys of one head, k [count, head_dim] with rows k_stride apart, to their places among 16 interleaved
  // ones:  interleaved[e * 16 + first + j] = k[j][e], or with `half` its fp16; first + count <= 16.
  void (*interleave_keys)(const float* k, std::int64_t k_stride, std::int64_t count,
                          std::int64_t head_dim, std::int64_t first, bool half, void* interleaved);
  void (*attention_backward)(const AttentionBackward& task);

  ActivationKernels silu, relu2, gelu;

  void (*add)(const float* a, const float* b, float* y, std::int64_t n);
  // Element i takes word i % 4 of block first_block + i / 4. y may be x.
  void (*dropout)(const DropoutRule& rule, std::uint64_t first_block, const float* x, float* y,
                  std::int64_t n);

  // One row: returns logsumexp(logits) - logits[target], and stores scale * (softmax - onehot)
  // unless dlogits is null. dlogits may be logits.
  float (*cross_entropy)(const float* logits, std::int64_t n, std::int64_t target, float scale,
                         float* dlogits);

  void (*adamw)(const AdamWFactors& factors, const float* gradient, float* parameter, float* m,
                float* v, std::int64_t n);

  // In double, by lanes.
  double (*sum)(const float* x, std::int64_t n);
  double (*sum_of_squares)(const float* x, std::int64_t n);

  // fp16: widening is exact; narrowing rounds to nearest even, beyond the range to infinity. A NaN
  // stays a NaN, quiet, with the leading bits of its payload.
  void (*widen)(const std::uint16_t* x, float* y, std::int64_t n);
  void (*narrow)(const float* x, std::uint16_t* y, std::int64_t n);

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
