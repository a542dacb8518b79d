// SPDX-License-Identifier: MIT
// Norms, quantisation of activations, gated activations, and what is fused of them.
#include "core/backend/row_checks.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/gated_activation.h"
#include "cuda/norm_backward.h"
#include "cuda/norm_quantize.h"

namespace bitnet::cuda {
namespace {

void check_one_type(const char* operation, std::initializer_list<ConstTensorView> views) {
  const DType first = views.begin()->dtype();
  for (const ConstTensorView& view : views) {
    BITNET_CHECK(view.dtype() == first, "{} of {} and {}: expected one type", operation,
                 bitnet::to_string(first), bitnet::to_string(view.dtype()));
  }
}

RowNorm row_norm(NormKind kind, ConstTensorView gain, float eps) {
  return {kind == NormKind::layer ? RowNormKind::layer : RowNormKind::rms, gain.as<float>().data(),
          eps};
}
RowNorm row_norm(const NormArguments& norm) { return row_norm(norm.kind, norm.gain, norm.eps); }

PlainRows plain_rows(ConstTensorView x) { return {reals(x)}; }

GatedRows gated_rows(Activation activation, ConstTensorView gate, ConstTensorView up) {
  const RowActivation same = activation == Activation::silu    ? RowActivation::silu
                             : activation == Activation::relu2 ? RowActivation::relu2
                                                               : RowActivation::gelu;
  return {reals(gate), reals(up), same};
}

// Without rows or without columns there is nothing to launch.
bool is_empty(ConstTensorView x) { return x.elements() == 0; }
int rows_of(ConstTensorView x) { return as_int(x.dim(0)); }
int width_of(ConstTensorView x) { return as_int(x.dim(1)); }

template <typename Rows>
NormQuantize<Rows> quantization(Rows input, RowNorm norm, TensorView codes, TensorView act_scale,
                                TensorView stats) {
  return {.input = input,
          .norm = norm,
          .stats = stats.as<float>().data(),
          .y = nullptr,
          .codes = codes.as<std::int8_t>().data(),
          .act_scale = act_scale.as<float>().data(),
          .rows = rows_of(codes),
          .width = width_of(codes)};
}

constexpr RowNorm kNoNorm = {RowNormKind::none, nullptr, 0.0f};

}  // namespace

void CudaBackend::norm(NormKind kind, ConstTensorView x, ConstTensorView gain, float eps,
                       TensorView y, TensorView stats) {
  check_norm(x, gain, y, stats);
  if (is_empty(x)) return;
  const NormQuantize<PlainRows> op = {.input = plain_rows(x),
                                      .norm = row_norm(kind, gain, eps),
                                      .stats = stats.as<float>().data(),
                                      .y = reals(y),
                                      .codes = nullptr,
                                      .act_scale = nullptr,
                                      .rows = rows_of(x),
                                      .width = width_of(x)};
  check(cuda::norm_quantize(op, stream_), "norm");
}

void CudaBackend::norm_backward(NormKind kind, ConstTensorView x, ConstTensorView gain,
                                ConstTensorView stats, ConstTensorView dy, TensorView dx,
                                bool accumulate_dx, TensorView dgain) {
  check_norm_backward(x, gain, stats, dy, dx, dgain);
  BITNET_CHECK(!accumulate_dx || dx.dtype() == DType::f32,
               "norm_backward adds to a dx of {}, expected f32", bitnet::to_string(dx.dtype()));
  if (is_empty(x)) return;
  Workspace::Frame frame(workspace_);
  const int rows = rows_of(x), width = width_of(x);
  const NormBackward<PlainRows> op = {
      .input = plain_rows(x),
      .norm = row_norm(kind, gain, 0.0f),
      .stats = stats.as<float>().data(),
      .dy = reals(dy),
      .dx = reals(dx),
      .accumulate = accumulate_dx,
      .dup = nullptr,
      .dgain = dgain.as<float>().data(),
      .parts = dgain ? frame.get<float>(std::int64_t{gain_parts(rows)} * width) : nullptr,
      .rows = rows,
      .width = width};
  check(cuda::norm_backward(op, stream_), "norm_backward");
}

void CudaBackend::quantize_activations(ConstTensorView x, TensorView codes, TensorView act_scale) {
  check_quantized(x, codes, act_scale);
  if (is_empty(x)) return;
  check(cuda::norm_quantize(quantization(plain_rows(x), kNoNorm, codes, act_scale, {}), stream_),
        "quantize_activations");
}

void CudaBackend::dequantize_activations(ConstTensorView codes, ConstTensorView act_scale,
                                         TensorView x) {
  check_quantized(x, codes, act_scale);
  if (is_empty(x)) return;
  const Dequantize op = {codes.as<std::int8_t>().data(), act_scale.as<float>().data(),
                         x.as<float>().data(), rows_of(x), width_of(x)};
  check(cuda::dequantize(op, stream_), "dequantize_activations");
}

void CudaBackend::norm_quantize(const NormArguments& norm, ConstTensorView x, TensorView codes,
                                TensorView act_scale, TensorView stats) {
  check_norm_quantize(norm, x, codes, act_scale, stats);
  if (is_empty(x)) return;
  check(cuda::norm_quantize(quantization(plain_rows(x), row_norm(norm), codes, act_scale, stats),
                            stream_),
        "norm_quantize");
}

void CudaBackend::gated_activation_quantize(Activation activation, ConstTensorView gate,
                                            ConstTensorView up, const NormArguments& norm,
                                            TensorView codes, TensorView act_scale,
                                            TensorView stats) {
  check_gated_activation_quantize(gate, up, norm, codes, act_scale, stats);
  check_one_type("gated_activation_quantize", {gate, up ? up : gate});
  if (is_empty(gate)) return;
  check(cuda::norm_quantize(quantization(gated_rows(activation, gate, up),
                                         stats ? row_norm(norm) : kNoNorm, codes, act_scale, stats),
                            stream_),
        "gated_activation_quantize");
}

void CudaBackend::gated_activation(Activation activation, ConstTensorView gate, ConstTensorView up,
                                   TensorView y) {
  check_gated_activation(gate, up, y);
  check_one_type("gated_activation", {gate, up ? up : gate, y});
  if (is_empty(gate)) return;
  const GatedActivation op = {gated_rows(activation, gate, up), reals(y), gate.elements()};
  check(cuda::gated_activation(op, stream_), "gated_activation");
}

void CudaBackend::gated_activation_backward(Activation activation, ConstTensorView gate,
                                            ConstTensorView up, ConstTensorView dy,
                                            TensorView dgate, TensorView dup) {
  check_gated_activation_backward(gate, up, dy, dgate, dup);
  check_one_type("gated_activation_backward",
                 {gate, up ? up : gate, dy, dgate, dup ? ConstTensorView(dup) : gate});
  if (is_empty(gate)) return;
  const GatedActivationBackward op = {gated_rows(activation, gate, up), reals(dy), reals(dgate),
                                      reals(dup), gate.elements()};
  check(cuda::gated_activation_backward(op, stream_), "gated_activation_backward");
}

void CudaBackend::gated_activation_norm_backward(Activation activation, ConstTensorView gate,
                                                 ConstTensorView up, const NormArguments& norm,
                                                 ConstTensorView stats, ConstTensorView dy,
                                                 TensorView dgate, TensorView dup,
                                                 TensorView dgain) {
  check_gated_activation_norm_backward(gate, up, norm, stats, dy, dgate, dup, dgain);
  check_one_type("gated_activation_norm_backward",
                 {gate, up ? up : gate, dy, dgate, dup ? ConstTensorView(dup) : gate});
  if (is_empty(gate)) return;
  Workspace::Frame frame(workspace_);
  const int rows = rows_of(gate), width = width_of(gate);
  const NormBackward<GatedRows> op = {
      .input = gated_rows(activation, gate, up),
      .norm = row_norm(norm),
      .stats = stats.as<float>().data(),
      .dy = reals(dy),
      .dx = reals(dgate),
      .accumulate = false,
      .dup = reals(dup),
      .dgain = dgain.as<float>().data(),
      .parts = dgain ? frame.get<float>(std::int64_t{gain_parts(rows)} * width) : nullptr,
      .rows = rows,
      .width = width};
  check(cuda::norm_backward(op, stream_), "gated_activation_norm_backward");
}

}  // namespace bitnet::cuda
