// SPDX-License-Identifier: MIT
// The contract between the model and a device: one virtual operation per operation of the papers.
//
// Shape letters, here and everywhere: B sequences, T tokens, S cached tokens, D hidden_size, F
// intermediate_size, H query heads, G key/value heads, E head_dim, V vocabulary; N outputs and K
// inputs of a linear product. Tensors are f32 unless said. "rows" are all tokens of a batch, B * T.
//
// Rules. A row's forward result depends on that row alone (never on the batch, the number of
// threads, or how many rows are given at once; but attention may have one kernel for few queries and
// one for more, which round differently). Gradients of parameters accumulate (+=); gradients
// of activations overwrite unless an argument says otherwise; they are the same bits for any number
// of threads, but may depend on how many rows are given. Operations neither allocate after their
// first call at a shape (recording may, see repeat()), nor synchronise (the reductions that return a
// number do). Empty views stand for absent optional tensors. A wrong shape or dtype throws
// ContractError.
//
// Tensors marked act, activations of a training and their gradients, are f32, or bf16 where
// training_dtype() is bf16: then each may be either, unless said. What is computed is fp32 all the
// same, and rounded once, to nearest even, as it is stored.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/base/random.h"
#include "core/quant/ternary.h"
#include "core/tensor/tensor.h"

namespace bitnet {

enum class NormKind : std::uint8_t { rms, layer };
enum class Activation : std::uint8_t { silu, relu2, gelu };  // gelu is the exact one: x Φ(x)
enum class RopeDirection : std::uint8_t { forward, backward };
// In what the two backward products of a BitLinear are computed: fp32 is the CPU's, bf16 (operands,
// with fp32 sums) the GPU's; int8 is everybody's. A backend refuses what it has not.
enum class GradientPrecision : std::uint8_t { fp32, bf16, int8 };

// What stands between an activation and its quantisation: norm() with these arguments.
struct NormArguments {
  NormKind kind = NormKind::rms;
  ConstTensorView gain;  // [D] or empty
  float eps = 0;
};

// One of the projections that read the same quantised input.
struct BitLinearProduct {
  ConstTensorView packed;         // u8 [N / 4, K]
  ConstTensorView weight_scale;   // [1] or [N, K / group_size]
  TensorView y;                   // act [rows, N]; f32 with a residual
  ConstTensorView residual = {};  // [rows, N], added to the product; or empty. y may be residual.
};
struct BitLinearGradient {
  ConstTensorView packed, weight_scale;
  ConstTensorView dy;  // act [rows, N]
  TensorView dw;       // [N, K], +=
};

// A matrix and what is made of it.
struct WeightQuantization {
  ConstTensorView w;        // [N, K]
  TensorView packed;        // u8 [N / 4, K]
  TensorView weight_scale;  // [1] or [N, K / group_size]
  TensorView flips = {};    // i32 [1] or empty: how many codes differ from those that `packed` held
};

// The room of a cache of keys and values is a multiple of so many tokens.
inline constexpr std::int64_t kCacheTile = 16;

struct AttentionShape {
  std::int64_t batch = 1;           // B
  std::int64_t queries = 0;         // T, new tokens of each sequence
  std::int64_t keys = 0;            // S, tokens in k and v of each sequence
  std::int64_t heads = 0;           // H
  std::int64_t kv_heads = 0;        // G, divides H; query head h reads key/value head h / (H / G)
  std::int64_t head_dim = 0;        // E, a multiple of 16
  std::int64_t first_position = 0;  // of the first query: query t sees keys 0 .. first_position + t
  // Not 0: k and v are the first tokens of caches that rope_append() or cached_attention() filled, with
  // room for so many, of which a backend may read (not use) more; B = 1. Recorded operations need it.
  std::int64_t capacity = 0;
};

struct AdamWStep {
  double learning_rate = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  std::int64_t step = 1;  // from 1, for the bias corrections
  double grad_scale = 1;  // multiplies the gradient first (clipping, mean over accumulated tokens)
};

// What AdamW updates, and from what; all of one size.
struct AdamWParameter {
  ConstTensorView gradient;
  TensorView parameter, m, v;
  bool decays = true;  // else as if weight_decay were 0
};

// What a device keeps of a sequence of operations in order to issue it again at little cost.
class RecordedOperations {
 public:
  virtual ~RecordedOperations() = default;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;    // "cpu"
  virtual std::string detail() const = 0;  // "amx, 2 threads"

  // Whether bit_linear_backward() takes it.
  virtual bool computes(GradientPrecision precision) const = 0;
  // What the tensors marked act should be, for speed and memory.
  virtual DType training_dtype() const { return DType::f32; }

  // --- memory ---
  virtual std::int64_t memory_bytes() const = 0;  // of the device, used or not
  // Zero-filled, aligned to 64 bytes. Throws DeviceError when there is not enough.
  virtual Storage allocate(std::int64_t bytes) = 0;
  Tensor make_tensor(DType dtype, Shape shape);
  // The same for what is about to be written as a whole, and will be read as a whole for each token
  // that is decoded: in the memory that is read soonest, where there is a difference.
  virtual Tensor make_streamed_tensor(DType dtype, Shape shape) {
    return make_tensor(dtype, shape);
  }
  // A tensor of these bytes of the host: in place, where the device's memory is the host's and they
  // are aligned to an element, else a copy. `owner` keeps them alive; the tensor is only read.
  virtual Tensor adopt(std::shared_ptr<const void> owner, const void* bytes, DType dtype,
                       Shape shape);
  virtual void copy_from_host(const void* source, TensorView destination) = 0;
  virtual void copy_to_host(ConstTensorView source, void* destination) = 0;
  virtual void copy(ConstTensorView source,
                    TensorView destination) = 0;  // same dtype and element count
  virtual void zero(TensorView x) = 0;
  // f32 to f16, to nearest even (beyond its range: infinity); f16 or bf16 to f32, exactly.
  virtual void convert(ConstTensorView x, TensorView y) = 0;

  // --- repetition ---
  // Issues `operations`, which depend on the contents of tensors and on `position` alone: each time
  // with the same tensors and arguments, and with position, if there is one, in no other place than
  // `first_position` of rope() and rope_append(), and `first_position` and `keys` of attention() and
  // cached_attention(), where it fits into the caches and the table. A device may record them in
  // `record` (empty before the first time) when they are issued, once or twice, and from then on run
  // the record without calling `operations`; so nothing else may happen in them, nothing in them
  // waits or copies from or to the host, and a new set of tensors needs a new record.
  virtual void repeat(std::unique_ptr<RecordedOperations>& record,
                      std::optional<std::int64_t> position,
                      const std::function<void()>& operations);

  // Returns when everything that was issued is done; for clocks. (What reads a result waits itself.)
  virtual void synchronize() {}

  // --- embedding ---
  virtual void embedding(ConstTensorView tokens,  // i32 [rows], each in [0, V)
                         ConstTensorView table,   // [V, D], f32 or bf16 (widened exactly)
                         TensorView y) = 0;       // [rows, D]
  virtual void embedding_backward(ConstTensorView tokens, ConstTensorView dy,
                                  TensorView dtable) = 0;  // +=

  // --- norms ---
  // y = (x - mean) * inv_std * gain. rms: mean = 0, inv_std = 1/sqrt(mean(x²) + eps); layer: the
  // mean and variance of the row.
  virtual void norm(NormKind kind, ConstTensorView x,  // act [rows, D]
                    ConstTensorView gain,              // [D] or empty
                    float eps, TensorView y,           // act [rows, D]
                    TensorView stats) = 0;             // [rows, 2]: mean, inv_std
  virtual void norm_backward(NormKind kind, ConstTensorView x, ConstTensorView gain,    // x: act
                             ConstTensorView stats, ConstTensorView dy, TensorView dx,  // act
                             bool accumulate_dx,     // dx += instead of =; dx is then f32
                             TensorView dgain) = 0;  // dgain +=, or empty

  // --- quantisation ---
  // quantize_token() of each row.
  virtual void quantize_activations(ConstTensorView x,          // [rows, K], f32 or bf16
                                    TensorView codes,           // i8 [rows, K]
                                    TensorView act_scale) = 0;  // [rows]
  virtual void dequantize_activations(ConstTensorView codes, ConstTensorView act_scale,
                                      TensorView x) = 0;
  // quantize_activations() of norm(), whose result is not stored. x: act.
  virtual void norm_quantize(const NormArguments& norm, ConstTensorView x, TensorView codes,
                             TensorView act_scale, TensorView stats) = 0;
  // quantize_activations() of [norm() of] gated_activation(), none of which is stored. Without
  // stats there is no norm. gate, up: act, of one dtype.
  virtual void gated_activation_quantize(Activation activation, ConstTensorView gate,
                                         ConstTensorView up, const NormArguments& norm,
                                         TensorView codes, TensorView act_scale,
                                         TensorView stats) = 0;
  // quantize_weights() and pack_codes() of core/quant, for any number of matrices. K is a multiple
  // of 64, N of 4, group_size of 64.
  virtual void quantize_weights(const WeightQuantizer& q,
                                std::span<const WeightQuantization> matrices) = 0;
  void quantize_weights(const WeightQuantizer& q, ConstTensorView w, TensorView packed,
                        TensorView weight_scale, TensorView flips) {
    const WeightQuantization matrix{w, packed, weight_scale, flips};
    quantize_weights(q, std::span(&matrix, 1));
  }
  virtual void dequantize_weights(ConstTensorView packed, ConstTensorView weight_scale,
                                  TensorView w) = 0;
  // out = x + amount * (quantized - x), the quantisation warm-up's mixture; out may be `quantized`.
  virtual void blend(ConstTensorView x, ConstTensorView quantized, float amount,
                     TensorView out) = 0;
  // counts[i]: of packed[i].
  virtual void count_codes(std::span<const ConstTensorView> packed,
                           std::span<CodeCounts> counts) = 0;
  CodeCounts count_codes(ConstTensorView packed);
  // Whether the 2-bit value 3, which stands for no code, is nowhere in it.
  virtual bool valid_codes(ConstTensorView packed) { return count_codes(packed).invalid == 0; }

  // --- linear products ---
  // For each product: y[t, n] = [residual[t, n] +] (act_scale[t] * weight_scale) * float(sum over k
  // of codes[t, k] * trit[n, k]); the sum is exact in int32 (|sum| <= 128 K, K < 2^24). With
  // groups: the sum over g, ascending and from 0, by fma, of weight_scale[n, g] * float(partial
  // sum), times act_scale[t] at the end. At most 8 products a call.
  virtual void bit_linear(ConstTensorView codes,      // i8 [rows, K]
                          ConstTensorView act_scale,  // [rows]
                          std::span<const BitLinearProduct> products) = 0;
  void bit_linear(ConstTensorView codes, ConstTensorView act_scale,
                  const BitLinearProduct& product) {
    bit_linear(codes, act_scale, std::span(&product, 1));
  }
  // Straight-through estimator: round and clip count as identity, so the gradients are those of the
  // dense products at the dequantised operands x̂ = act_scale * codes, ŵ = weight_scale * trit:
  //   dx = sum over the products of dy · ŵ  (or dx is empty),  dw += dyᵀ · x̂.
  // With int8 both products are integer, and what is rounded is dy alone, as quantize_token() does
  // it but for the lower bound of the scale, which is far below any gradient: for dx each row, for
  // dw the columns of dy * act_scale, in stretches of tokens (the backend's choice) that each have
  // a scale of their own, absmax / 127. With grouped scales dx is in the backend's floats.
  virtual void bit_linear_backward(ConstTensorView codes, ConstTensorView act_scale,
                                   std::span<const BitLinearGradient> gradients,
                                   GradientPrecision precision,
                                   TensorView dx) = 0;  // act [rows, K], overwritten
  void bit_linear_backward(ConstTensorView codes, ConstTensorView act_scale,
                           const BitLinearGradient& gradient, GradientPrecision precision,
                           TensorView dx) {
    bit_linear_backward(codes, act_scale, std::span(&gradient, 1), precision, dx);
  }
  // y[t, n] = (act_scale[t] * row_scale[n]) * float(sum over k of codes[t, k] * weights[n, k]): an
  // output head whose rows were quantised by quantize_activations().
  virtual void int8_linear(ConstTensorView codes, ConstTensorView act_scale,
                           ConstTensorView weights,    // i8 [N, K], K <= 2^16
                           ConstTensorView row_scale,  // [N]
                           TensorView y) = 0;          // [rows, N]
  // y = x · wᵀ. x, y: act.
  virtual void linear(ConstTensorView x, ConstTensorView w,
                      TensorView y) = 0;  // [rows, K], [N, K], [rows, N]
  // dx = dy · w,  dw += dyᵀ · x. Either of dx and dw may be empty. x, dy, dx: act; dx += also in
  // bf16.
  virtual void linear_backward(ConstTensorView x, ConstTensorView w, ConstTensorView dy,
                               TensorView dx, bool accumulate_dx, TensorView dw) = 0;

  // --- attention ---
  // In place on x [B, T, heads, E]; half-split (rotate_half): elements i and i + E/2 form a pair,
  // turned by the angle of position first_position + t. x: act. `table` is [positions, E]: cos in the first
  // half of a row, sin in the second.
  virtual void rope(TensorView x, ConstTensorView table, std::int64_t first_position,
                    RopeDirection direction) = 0;
  // rope() forward of q and k, which stay in place, and k and v to the places of their positions in
  // caches, f32 or rounded to f16 as convert() does it: of the new tokens of one sequence. A cache lies
  // as the backend likes it, for attention() with a capacity. q, k, v: f32.
  virtual void rope_append(TensorView q, TensorView k,  // [1, T, H, E], [1, T, G, E]
                           ConstTensorView v,           // [1, T, G, E]
                           ConstTensorView table, std::int64_t first_position, TensorView keys,
                           TensorView values) = 0;  // [capacity, G, E]
  // out = softmax(q kᵀ / sqrt(E)) v under the causal mask, with an online softmax; no T x S matrix
  // is stored. k and v may be f16, beside f32 others. q, k, v, out: act, of one dtype.
  virtual void attention(const AttentionShape& shape, ConstTensorView q,  // [B, T, H, E]
                         ConstTensorView k, ConstTensorView v,            // [B, S, G, E]
                         TensorView out,                                  // [B, T, H, E]
                         TensorView logsumexp) = 0;                       // [B, H, T], or empty
  // rope_append(), then attention() of the new tokens over what the caches hold with them. q, k, v,
  // table, keys and values as rope_append() takes them; shape.capacity is that of the caches, its keys
  // end with the new tokens.
  virtual void cached_attention(const AttentionShape& shape, TensorView q, TensorView k,
                                ConstTensorView v, ConstTensorView table, TensorView keys,
                                TensorView values, TensorView out);  // [1, T, H, E]
  // Only for queries == keys and first_position == 0. All but logsumexp: act, of one dtype.
  virtual void attention_backward(const AttentionShape& shape, ConstTensorView q, ConstTensorView k,
                                  ConstTensorView v, ConstTensorView out, ConstTensorView logsumexp,
                                  ConstTensorView dout, TensorView dq, TensorView dk,
                                  TensorView dv) = 0;

  // --- elementwise --- (gated activations: act, all of one call of one dtype)
  // y = activation(gate) * up, or activation(gate) when up is empty.
  virtual void gated_activation(Activation activation, ConstTensorView gate, ConstTensorView up,
                                TensorView y) = 0;
  virtual void gated_activation_backward(Activation activation, ConstTensorView gate,
                                         ConstTensorView up, ConstTensorView dy, TensorView dgate,
                                         TensorView dup) = 0;  // dup empty with up
  // Backward of norm() of gated_activation(), which is computed again; dy: gradient by the norm's
  // result.
  virtual void gated_activation_norm_backward(Activation activation, ConstTensorView gate,
                                              ConstTensorView up, const NormArguments& norm,
                                              ConstTensorView stats, ConstTensorView dy,
                                              TensorView dgate, TensorView dup,
                                              TensorView dgain) = 0;
  virtual void add(ConstTensorView a, ConstTensorView b, TensorView y) = 0;  // y may be a or b
  // y[i] = x[i] / (1 - p) where element i is kept, else 0; y may be x. Element i is kept when word
  // i % 4 of stream.block(first / 4 + i / 4) is >= p * 2^32; `first` (a multiple of 4) is the index
  // of x[0] in the stream. Its own backward.
  virtual void dropout(ConstTensorView x, double p, const RandomStream& stream, std::uint64_t first,
                       TensorView y) = 0;

  // --- loss and update ---
  // loss[t] = logsumexp(logits[t]) - logits[t, target]; dlogits (or empty; may be logits) = scale *
  // (softmax - onehot). A target of -1 is ignored: loss 0, gradient 0.
  virtual void cross_entropy(ConstTensorView logits,   // [rows, V]
                             ConstTensorView targets,  // i32 [rows]
                             TensorView loss,          // [rows]
                             float scale, TensorView dlogits) = 0;
  // PyTorch's AdamW: p *= 1 - lr * wd; m, v moments of g * grad_scale; p -= lr / (1 - β1^t) * m /
  // (sqrt(v / (1 - β2^t)) + eps), for any number of parameters.
  virtual void adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) = 0;
  void adamw(const AdamWStep& step, ConstTensorView gradient, TensorView parameter, TensorView m,
             TensorView v) {
    const AdamWParameter one{gradient, parameter, m, v};
    adamw(step, std::span(&one, 1));
  }
  // The sums of the elements of each of x, then those of the squares of each of `squared`. In
  // double, by tiles of fixed size in ascending order.
  virtual void sums(std::span<const ConstTensorView> x, std::span<const ConstTensorView> squared,
                    std::span<double> sums) = 0;
  double sum(ConstTensorView x);
  double sum_of_squares(ConstTensorView x);
};

}  // namespace bitnet
