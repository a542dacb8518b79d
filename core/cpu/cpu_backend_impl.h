// SPDX-License-Identifier: MIT
// The class behind make_cpu_backend(). Its operations are defined by family: quant_ops.cpp,
// bit_linear_ops.cpp, bit_linear_backward_ops.cpp, int8_linear_ops.cpp, linear_ops.cpp,
// norm_ops.cpp, attention_ops.cpp, activation_ops.cpp, elementwise_ops.cpp, loss_ops.cpp; each cuts
// its work into tasks as parallel.h says.
#pragma once

#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/base/parallel.h"
#include "core/cpu/token_record.h"

namespace bitnet::cpu {

struct IntegerKernels;   // integer_kernels.h
struct FloatKernels;     // float_kernels.h
struct PanelKernels;     // panel_kernels.h
struct GradientKernels;  // gradient_kernels.h
struct HeadKernels;      // head_kernels.h

// to[i] = from[i] for the bits of a bf16 number, which are the upper half of the fp32 ones.
void widen_bf16(const std::uint16_t* from, std::int64_t count, float* to);

// Memory that grows to the largest request seen and then stays; contents are undefined between
// uses.
class Scratch {
 public:
  template <typename T>
  T* get(std::int64_t count) {
    return static_cast<T*>(reserve(count * static_cast<std::int64_t>(sizeof(T))));
  }

 private:
  void* reserve(std::int64_t bytes);  // aligned to kApart
  Storage storage_;
  std::int64_t bytes_ = 0;
};

// Memory for each thread of a team, made before its tasks run; a task takes that of its thread.
template <typename T>
class ThreadScratch {
 public:
  ThreadScratch(Scratch& memory, const ThreadTeam& team, std::int64_t count)
      : stride_(tile_count(count * kSize, kApart) * kApart / kSize),
        data_(memory.get<T>(stride_ * team.size())) {}
  T* get() const { return data_ + stride_ * ThreadTeam::thread(); }

 private:
  static constexpr std::int64_t kSize = sizeof(T);
  std::int64_t stride_;
  T* data_;
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, const std::string& isa);

  std::string name() const override { return "cpu"; }
  std::string detail() const override;
  bool computes(GradientPrecision precision) const override {
    return precision != GradientPrecision::bf16;
  }

  std::int64_t memory_bytes() const override;
  Storage allocate(std::int64_t bytes) override;
  Tensor make_streamed_tensor(DType dtype, Shape shape) override;
  Tensor adopt(std::shared_ptr<const void> owner, const void* bytes, DType dtype,
               Shape shape) override;
  void copy_from_host(const void* source, TensorView destination) override;
  void copy_to_host(ConstTensorView source, void* destination) override;
  void copy(ConstTensorView source, TensorView destination) override;
  void zero(TensorView x) override;
  void convert(ConstTensorView x, TensorView y) override;
  void repeat(std::unique_ptr<RecordedOperations>& record, std::optional<std::int64_t> position,
              const std::function<void()>& operations) override;

  void embedding(ConstTensorView tokens, ConstTensorView table, TensorView y) override;
  void embedding_backward(ConstTensorView tokens, ConstTensorView dy, TensorView dtable) override;

  void norm(NormKind kind, ConstTensorView x, ConstTensorView gain, float eps, TensorView y,
            TensorView stats) override;
  void norm_backward(NormKind kind, ConstTensorView x, ConstTensorView gain, ConstTensorView stats,
                     ConstTensorView dy, TensorView dx, bool accumulate_dx,
                     TensorView dgain) override;

  void quantize_activations(ConstTensorView x, TensorView codes, TensorView act_scale) override;
  void dequantize_activations(ConstTensorView codes, ConstTensorView act_scale,
                              TensorView x) override;
  void norm_quantize(const NormArguments& norm, ConstTensorView x, TensorView codes,
                     TensorView act_scale, TensorView stats) override;
  void gated_activation_quantize(Activation activation, ConstTensorView gate, ConstTensorView up,
                                 const NormArguments& norm, TensorView codes, TensorView act_scale,
                                 TensorView stats) override;
  void quantize_weights(const WeightQuantizer& q,
                        std::span<const WeightQuantization> matrices) override;
  void dequantize_weights(ConstTensorView packed, ConstTensorView weight_scale,
                          TensorView w) override;
  void blend(ConstTensorView x, ConstTensorView quantized, float amount, TensorView out) override;
  void count_codes(std::span<const ConstTensorView> packed, std::span<CodeCounts> counts) override;
  bool valid_codes(ConstTensorView packed) override;

  void bit_linear(ConstTensorView codes, ConstTensorView act_scale,
                  std::span<const BitLinearProduct> products) override;
  void bit_linear_backward(ConstTensorView codes, ConstTensorView act_scale,
                           std::span<const BitLinearGradient> gradients,
                           GradientPrecision precision, TensorView dx) override;
  void int8_linear(ConstTensorView codes, ConstTensorView act_scale, ConstTensorView weights,
                   ConstTensorView row_scale, TensorView y) override;
  void linear(ConstTensorView x, ConstTensorView w, TensorView y) override;
  void linear_backward(ConstTensorView x, ConstTensorView w, ConstTensorView dy, TensorView dx,
                       bool accumulate_dx, TensorView dw) override;

  void rope(TensorView x, ConstTensorView table, std::int64_t first_position,
            RopeDirection direction) override;
  void rope_append(TensorView q, TensorView k, ConstTensorView v, ConstTensorView table,
                   std::int64_t first_position, TensorView keys, TensorView values) override;
  void cached_attention(const AttentionShape& shape, TensorView q, TensorView k, ConstTensorView v,
                        ConstTensorView table, TensorView keys, TensorView values,
                        TensorView out) override;
  void attention(const AttentionShape& shape, ConstTensorView q, ConstTensorView k,
                 ConstTensorView v, TensorView out, TensorView logsumexp) override;
  void attention_backward(const AttentionShape& shape, ConstTensorView q, ConstTensorView k,
                          ConstTensorView v, ConstTensorView out, ConstTensorView logsumexp,
                          ConstTensorView dout, TensorView dq, TensorView dk,
                          TensorView dv) override;

  void gated_activation(Activation activation, ConstTensorView gate, ConstTensorView up,
                        TensorView y) override;
  void gated_activation_backward(Activation activation, ConstTensorView gate, ConstTensorView up,
                                 ConstTensorView dy, TensorView dgate, TensorView dup) override;
  void gated_activation_norm_backward(Activation activation, ConstTensorView gate,
                                      ConstTensorView up, const NormArguments& norm,
                                      ConstTensorView stats, ConstTensorView dy, TensorView dgate,
                                      TensorView dup, TensorView dgain) override;
  void add(ConstTensorView a, ConstTensorView b, TensorView y) override;
  void dropout(ConstTensorView x, double p, const RandomStream& stream, std::uint64_t first,
               TensorView y) override;

  void cross_entropy(ConstTensorView logits, ConstTensorView targets, TensorView loss, float scale,
                     TensorView dlogits) override;
  void adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) override;
  void sums(std::span<const ConstTensorView> x, std::span<const ConstTensorView> squared,
            std::span<double> sums) override;

 private:
  // Runs an operation of repeat() that a record can keep: operation(position) of what it captures
  // by value, tensors' addresses and sizes. `position`: of the token, if it depends on one.
  template <typename Operation>
  void issue(Operation&& operation, std::int64_t position = 0);
  // The team, for operations that are not issued so: the sequence that has one is never recorded.
  const ThreadTeam& team();

  // How far ahead of its use a stream of weights is fetched: `ahead` of the kernels.
  std::int64_t stream_ahead() const;
  void quantize_matrix(const WeightQuantizer& q, const WeightQuantization& matrix);

  ThreadTeam issued_team_;  // within what is issued; otherwise team()
  std::string isa_;
  const IntegerKernels* integer_;
  const FloatKernels* float_;
  const PanelKernels* panel_;
  const GradientKernels* gradient_;
  const HeadKernels* head_;
  TokenRecord* record_ = nullptr;  // within repeat()
  // Bytes of the third-level caches, where the processor prefetches streams itself; else 0.
  std::int64_t streaming_cache_;
  Scratch gradient_scratch_;                // integer_gradients
  Scratch thread_scratch_;                  // ThreadScratch
  Scratch weight_scratch_, input_scratch_;  // linear_ops: ŵ, x̂
  Scratch reduction_scratch_;               // partial sums of reductions
};

template <typename Operation>
void CpuBackend::issue(Operation&& operation, std::int64_t position) {
  if (record_ != nullptr && record_->recording()) record_->keep(operation);
  operation(position);
}

}  // namespace bitnet::cpu
