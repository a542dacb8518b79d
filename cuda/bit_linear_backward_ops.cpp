// SPDX-License-Identifier: MIT
// Gradients of the integer products, by the straight-through estimator. In int8, with the bits of
// the CPU backend: dy is rounded once by rows, for dx, and once by columns of stretches of tokens,
// for dw; both products then run over contiguous int8, in which their operands are laid out first.
#include <algorithm>
#include <vector>

#include "core/backend/packed_shape.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/gradient_codes.h"
#include "cuda/int8_gemm.h"
#include "cuda/unpack_codes.h"

namespace bitnet::cuda {
namespace {

constexpr const char* kOperation = "bit_linear_backward";

void check_gradient(ConstTensorView codes, const BitLinearGradient& g, ConstTensorView dx) {
  const PackedShape shape = packed_shape(g.packed, g.weight_scale);
  const Shape w_shape{shape.outputs, shape.inputs};
  BITNET_CHECK(codes.dim(1) == shape.inputs &&
                   g.dy.shape() == (Shape{codes.dim(0), shape.outputs}) &&
                   (!dx || dx.shape() == codes.shape()) && (!g.dw || g.dw.shape() == w_shape) &&
                   shape.outputs <= kMostElements && shape.inputs <= kMostElements,
               "codes {}, packed {}, dy {}, dx {}, dw {}: expected [rows, K], [N / 4, K], "
               "[rows, N], [rows, K] or none, [N, K] or none",
               codes.shape().to_string(), g.packed.shape().to_string(), g.dy.shape().to_string(),
               dx.shape().to_string(), g.dw.shape().to_string());
}

}  // namespace

void CudaBackend::bit_linear_backward(ConstTensorView codes, ConstTensorView act_scale,
                                      std::span<const BitLinearGradient> gradients,
                                      GradientPrecision precision, TensorView dx) {
  BITNET_CHECK(codes.shape().rank() == 2 && act_scale.elements() == codes.dim(0) &&
                   codes.dim(0) <= kMostElements,
               "codes {}, act_scale {}: expected [rows, K], [rows]", codes.shape().to_string(),
               act_scale.shape().to_string());
  BITNET_CHECK(!gradients.empty(), "bit_linear_backward of no products, expected at least one");
  BITNET_CHECK(computes(precision), "fp32 gradients on the GPU, expected bf16 or int8");
  for (const BitLinearGradient& g : gradients) check_gradient(codes, g, dx);
  if (codes.dim(0) == 0) return;
  if (precision == GradientPrecision::bf16) {
    return bit_linear_backward_bf16(codes, act_scale, gradients, dx);
  }
  if (dx) int8_input_gradient(codes, act_scale, gradients, dx);
  int8_weight_gradients(codes, act_scale, gradients);
}

// Grouped scales cannot be taken out of a sum over N: the products that have them are done in bf16,
// first, since that overwrites dx. All but the last add up in f32.
void CudaBackend::int8_input_gradient(ConstTensorView codes, ConstTensorView act_scale,
                                      std::span<const BitLinearGradient> gradients, TensorView dx) {
  const int rows = as_int(codes.dim(0)), inputs = as_int(codes.dim(1));
  std::vector<BitLinearGradient> grouped;
  for (const BitLinearGradient& g : gradients) {
    if (g.weight_scale.shape().rank() == 2) {
      grouped.push_back({g.packed, g.weight_scale, g.dy, {}});
    }
  }
  std::size_t left = gradients.size() - grouped.size();
  Workspace::Frame frame(workspace_);
  TensorView sum = dx;
  if (dx.dtype() != DType::f32 && left > (grouped.empty() ? 1U : 0U)) {
    sum = {reinterpret_cast<std::byte*>(frame.get<float>(dx.elements())), DType::f32, dx.shape()};
  }
  if (!grouped.empty()) bit_linear_backward_bf16(codes, act_scale, grouped, sum);
  bool add = !grouped.empty();
  for (const BitLinearGradient& g : gradients) {
    if (g.weight_scale.shape().rank() == 2) continue;
    const int outputs = as_int(g.dy.dim(1)), quarter = outputs / 4;
    const int depth = padded_outputs(quarter);
    Workspace::Frame inner(workspace_);
    auto* const dy_codes = inner.get<std::int8_t>(std::int64_t{rows} * depth);
    auto* const dy_scale = inner.get<float>(rows);
    auto* const trits = inner.get<std::int8_t>(std::int64_t{inputs} * depth);
    check(quantize_gradient_rows(reals(g.dy), rows, outputs, dy_codes, dy_scale, stream_),
          kOperation);
    check(unpack_transposed(g.packed.as<std::uint8_t>().data(), quarter, inputs, trits, stream_),
          kOperation);
    Int8Gemm gemm{};
    gemm.a = dy_codes;
    gemm.b = trits;
    gemm.rows = rows;
    gemm.columns = inputs;
    gemm.depth = depth;
    gemm.kind = Int8Scale::tensor;
    gemm.scale = g.weight_scale.as<float>().data();
    gemm.row_scale = dy_scale;
    gemm.addend = add ? sum.as<float>().data() : nullptr;
    gemm.fused = true;
    gemm.y = reals(--left == 0 ? dx : sum);
    int8_product(gemm);
    add = true;
  }
}

void CudaBackend::int8_weight_gradients(ConstTensorView codes, ConstTensorView act_scale,
                                        std::span<const BitLinearGradient> gradients) {
  const auto wanted = [](const BitLinearGradient& g) { return static_cast<bool>(g.dw); };
  if (std::none_of(gradients.begin(), gradients.end(), wanted)) return;
  const int rows = as_int(codes.dim(0)), inputs = as_int(codes.dim(1));
  const std::int64_t tokens = padded_tokens(rows);
  Workspace::Frame frame(workspace_);
  auto* const x = frame.get<std::int8_t>(inputs * tokens);
  check(transpose_codes(codes.as<std::int8_t>().data(), rows, inputs, x, stream_), kOperation);
  for (const BitLinearGradient& g : gradients) {
    if (!g.dw) continue;
    const int outputs = as_int(g.dy.dim(1));
    Workspace::Frame inner(workspace_);
    auto* const dy_codes = inner.get<std::int8_t>(outputs * tokens);
    auto* const dy_scale = inner.get<float>(std::int64_t{outputs} * gradient_stretches(rows));
    check(quantize_gradient_columns(reals(g.dy), act_scale.as<float>().data(), rows, outputs,
                                    dy_codes, dy_scale, stream_),
          kOperation);
    Int8Gemm gemm{};
    gemm.a = dy_codes;
    gemm.b = x;
    gemm.rows = outputs;
    gemm.columns = inputs;
    gemm.depth = as_int(tokens);
    gemm.kind = Int8Scale::row_groups;
    gemm.scale = dy_scale;
    gemm.group_size = kGradientStretch;
    float* const dw = g.dw.as<float>().data();
    gemm.addend = dw;
    gemm.y = dw;
    int8_product(gemm);
  }
}

}  // namespace bitnet::cuda
