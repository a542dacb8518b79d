// SPDX-License-Identifier: MIT
// Gradients of the integer products, by the straight-through estimator. In int8, with the bits of
// the CPU backend: dy is rounded once by rows, for dx, and once by columns of stretches of tokens,
// for dw; both products then run over contiguous int8, in which their operands are laid out first.
// Products that share their input are done together, as many as one launch takes.
#include <algorithm>
#include <vector>

#include "core/backend/packed_shape.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/gradient_codes.h"
#include "cuda/gradient_gemm.h"
#include "cuda/unpack_codes.h"

namespace bitnet::cuda {
namespace {

constexpr const char* kOperation = "bit_linear_backward";

// Products of one launch.
constexpr std::size_t kMostTogether = kMostGradients;
static_assert(kMostGradients <= kGradientParts && kMostGradients <= kMostTransposed);

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
  std::vector<BitLinearGradient> grouped, single;
  for (const BitLinearGradient& g : gradients) {
    (g.weight_scale.shape().rank() == 2 ? grouped : single)
        .push_back({g.packed, g.weight_scale, g.dy, {}});
  }
  if (single.empty()) return bit_linear_backward_bf16(codes, act_scale, grouped, dx);
  Workspace::Frame frame(workspace_);
  TensorView sum = dx;
  if (dx.dtype() != DType::f32 && (!grouped.empty() || single.size() > kMostTogether)) {
    sum = {reinterpret_cast<std::byte*>(frame.get<float>(dx.elements())), DType::f32, dx.shape()};
  }
  if (!grouped.empty()) bit_linear_backward_bf16(codes, act_scale, grouped, sum);
  bool add = !grouped.empty();
  for (std::size_t first = 0; first < single.size(); first += kMostTogether) {
    const auto some =
        std::span(single).subspan(first, std::min(kMostTogether, single.size() - first));
    const bool last = first + some.size() == single.size();
    int8_input_gradient_of(some, add ? sum.as<float>().data() : nullptr, last ? dx : sum);
    add = true;
  }
}

void CudaBackend::int8_input_gradient_of(std::span<const BitLinearGradient> gradients,
                                         const float* addend, TensorView dx) {
  const int rows = as_int(dx.dim(0)), inputs = as_int(dx.dim(1)),
            count = as_int(std::ssize(gradients));
  GradientGemm gemm{};
  GradientRows rounded{};
  TransposedCodes weights{};
  rounded.gradients.count = weights.matrices = gemm.groups = count;
  rounded.gradients.rows = rows;
  weights.depth = inputs;
  int depth = 0;
  for (int i = 0; i < count; ++i) {
    const BitLinearGradient& g = gradients[static_cast<std::size_t>(i)];
    const int outputs = as_int(g.dy.dim(1));
    rounded.gradients.gradient[i] = {reals(g.dy), outputs};
    rounded.weight_scale[i] = g.weight_scale.as<float>().data();
    weights.packed[i] = g.packed.as<std::uint8_t>().data();
    weights.quarter[i] = outputs / 4;
    BITNET_CHECK(depth <= kMostElements - padded_outputs(outputs / 4),
                 "{} outputs of products that share an input, expected at most {}",
                 std::int64_t{depth} + outputs, kMostElements);
    depth += padded_outputs(outputs / 4);
    if (i + 1 < count) gemm.group_ends[i] = depth;
  }
  Workspace::Frame frame(workspace_);
  rounded.codes = frame.get<std::int8_t>(std::int64_t{rows} * depth);
  rounded.scale = frame.get<float>(std::int64_t{rows} * count);
  weights.trits = frame.get<std::int8_t>(std::int64_t{inputs} * depth);
  check(quantize_gradient_rows(rounded, stream_), kOperation);
  check(unpack_transposed(weights, stream_), kOperation);
  gemm.a = rounded.codes;
  gemm.b = weights.trits;
  gemm.rows = rows;
  gemm.columns = inputs;
  gemm.depth = depth;
  gemm.scale = rounded.scale;
  gemm.parts = 1;
  gemm.part[0] = {0, reals(dx), addend};
  gradient_product(gemm);
}

void CudaBackend::int8_weight_gradients(ConstTensorView codes, ConstTensorView act_scale,
                                        std::span<const BitLinearGradient> gradients) {
  std::vector<BitLinearGradient> wanted;
  for (const BitLinearGradient& g : gradients) {
    if (g.dw) wanted.push_back(g);
  }
  if (wanted.empty()) return;
  const int rows = as_int(codes.dim(0)), inputs = as_int(codes.dim(1));
  const std::int64_t tokens = padded_tokens(rows);
  Workspace::Frame frame(workspace_);
  auto* const x = frame.get<std::int8_t>(inputs * tokens);
  check(transpose_codes(codes.as<std::int8_t>().data(), rows, inputs, x, stream_), kOperation);
  for (std::size_t first = 0; first < wanted.size(); first += kMostTogether) {
    GradientGemm gemm{};
    GradientColumns rounded{};
    rounded.gradients.rows = rows;
    rounded.act_scale = act_scale.as<float>().data();
    const std::size_t end = std::min(first + kMostTogether, wanted.size());
    for (std::size_t i = first; i < end; ++i) {
      const BitLinearGradient& g = wanted[i];
      const int outputs = as_int(g.dy.dim(1));
      rounded.gradients.gradient[rounded.gradients.count++] = {reals(g.dy), outputs};
      float* const dw = g.dw.as<float>().data();
      gemm.part[gemm.parts++] = {gemm.rows, dw, dw};
      BITNET_CHECK(gemm.rows <= kMostElements - outputs,
                   "{} outputs of products that share an input, expected at most {}",
                   std::int64_t{gemm.rows} + outputs, kMostElements);
      gemm.rows += outputs;
    }
    Workspace::Frame inner(workspace_);
    rounded.codes = inner.get<std::int8_t>(gemm.rows * tokens);
    rounded.scale = inner.get<float>(std::int64_t{gemm.rows} * gradient_stretches(rows));
    check(quantize_gradient_columns(rounded, stream_), kOperation);
    gemm.a = rounded.codes;
    gemm.b = x;
    gemm.columns = inputs;
    gemm.depth = as_int(tokens);
    gemm.scale = rounded.scale;
    gemm.groups = gradient_stretches(rows);
    gemm.group_size = kGradientStretch;
    gradient_product(gemm);
  }
}

}  // namespace bitnet::cuda
