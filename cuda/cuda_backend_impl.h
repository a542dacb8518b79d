// SPDX-License-Identifier: MIT
// The class behind make_cuda_backend(). Its operations are defined by family: row_ops.cpp (norms,
// activations and what is fused with them), element_ops.cpp, weight_ops.cpp, token_ops.cpp (embedding,
// loss, reductions), bit_linear_ops.cpp, linear_ops.cpp, attention_ops.cpp; each checks the shapes and
// launches kernels on the backend's stream. Nothing is computed on the host.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "core/backend/backend.h"
#include "cuda/cuda_backend.h"
#include "cuda/host_staging.h"
#include "cuda/launch_check.h"
#include "cuda/position.h"
#include "cuda/probe.h"
#include "cuda/reals.h"
#include "cuda/workspace.h"

namespace bitnet::cuda {

class MatrixProducts;  // matrix_products.h
struct GradientGemm;   // gradient_gemm.h
struct Int8Gemm;       // int8_gemm.h
struct PackedGemv;     // packed_gemv.h

// The ways to an int8 product; not every product can go every way.
enum class Int8Route : std::uint8_t { small_tile, large_tile, cublaslt };
inline constexpr std::size_t kInt8Routes = 3;
// cuBLASLt's int32 sums that are brought back to reals at once: 32 MB, which the second-level cache
// of a large GPU still holds.
inline constexpr std::int64_t kInt8BlockSums = std::int64_t{1} << 23;

// Of a dimension: kernels take it as an int, and may round it up.
inline constexpr std::int64_t kMostElements = std::numeric_limits<int>::max() - 1024;
inline int as_int(std::int64_t n) { return static_cast<int>(n); }

// The elements of a view in device memory, null for an empty one. T must be the stored type;
// 16-bit floats by their own types.
template <typename T>
T* data(TensorView x) {
  return reinterpret_cast<T*>(x.raw());
}
template <typename T>
const T* data(ConstTensorView x) {
  return reinterpret_cast<const T*>(x.raw());
}

// The same for what is f32 or bf16: tensors that the contract marks "act".
inline ConstReals reals(ConstTensorView x) {
  if (x.dtype() == DType::bf16) return data<__nv_bfloat16>(x);
  return x.as<float>().data();
}
inline Reals reals(TensorView x) {
  if (x.dtype() == DType::bf16) return data<__nv_bfloat16>(x);
  return x.as<float>().data();
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaDevice& device);
  ~CudaBackend() override;

  std::string name() const override { return "cuda"; }
  std::string detail() const override { return detail_; }
  bool computes(GradientPrecision precision) const override {
    return precision != GradientPrecision::fp32;
  }
  DType training_dtype() const override { return DType::bf16; }

  // cuda_backend.cpp
  std::int64_t memory_bytes() const override { return memory_bytes_; }
  Storage allocate(std::int64_t bytes) override;
  void copy_from_host(const void* source, TensorView destination) override;
  void copy_to_host(ConstTensorView source, void* destination) override;
  void copy(ConstTensorView source, TensorView destination) override;
  void zero(TensorView x) override;
  void repeat(std::unique_ptr<RecordedOperations>& record, std::optional<std::int64_t> position,
              const std::function<void()>& operations) override;
  void synchronize() override;

  void convert(ConstTensorView x, TensorView y) override;

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

  // For tests: int8 products go this way where it can be used, instead of the quickest, and
  // cuBLASLt's sums are brought back to reals in blocks of about so many.
  void force_int8_route(Int8Route route, std::int64_t block_sums) {
    int8_probe_.force(static_cast<std::size_t>(route));
    int8_block_sums_ = block_sums;
  }

 private:
  // linear_ops.cpp: bit_linear_backward() with GradientPrecision::bf16, whose shapes have been
  // checked. Either of dx and a gradient's dw may be empty.
  void bit_linear_backward_bf16(ConstTensorView codes, ConstTensorView act_scale,
                                std::span<const BitLinearGradient> gradients, TensorView dx);

  // bit_linear_backward_ops.cpp: the two parts of it with GradientPrecision::int8. The second computes
  // dx = [addend +] the sum over products of one launch, each with a single scale.
  void int8_input_gradient(ConstTensorView codes, ConstTensorView act_scale,
                           std::span<const BitLinearGradient> gradients, TensorView dx);
  void int8_input_gradient_of(std::span<const BitLinearGradient> gradients, const float* addend,
                              TensorView dx);
  void int8_weight_gradients(ConstTensorView codes, ConstTensorView act_scale,
                             std::span<const BitLinearGradient> gradients);

  // int8_products.cpp: by the quickest way.
  void int8_product(const Int8Gemm& product);
  void packed_product(const PackedGemv& products);  // groups 0, K within kPackedGemmDepth
  void gradient_product(const GradientGemm& product);
  // False, and nothing issued, where the route cannot be used.
  bool issue_int8_product(const Int8Gemm& product, Int8Route route);
  bool issue_packed_product(const PackedGemv& products, Int8Route route);
  // Of the first `routes`, for a key of the shape and a number of multiplications.
  Int8Route quickest_route(const Probe::Key& key, std::size_t routes, std::int64_t products,
                           const std::function<bool(Int8Route)>& issue);

  // As an argument of a kernel: `position` itself, or relative to that of the record being made.
  Position position(std::int64_t position) const;

  // The operations as a graph, in which they read their position, if they have one, from
  // recorded_position_. Null where the device has no memory left for it.
  cudaGraphExec_t capture(std::optional<std::int64_t> position,
                          const std::function<void()>& operations);

  std::string detail_;
  std::int64_t memory_bytes_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<HostStaging> staging_;
  Workspace workspace_;
  int* recorded_position_ = nullptr;          // device memory that records read
  std::optional<std::int64_t> recording_at_;  // the position of the record being made
  std::unique_ptr<MatrixProducts> products_;
  Probe int8_probe_;  // its candidates are the Int8Routes
  std::int64_t int8_block_sums_ = kInt8BlockSums;
};

}  // namespace bitnet::cuda
