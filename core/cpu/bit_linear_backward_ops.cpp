// SPDX-License-Identifier: MIT
// Gradients of the integer products, by the straight-through estimator: those of the dense products
// at the dequantised operands, in fp32, or in int8 (integer_gradients.h).
#include "core/backend/packed_shape.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/dense_backward.h"
#include "core/cpu/integer_gradients.h"

namespace bitnet::cpu {

void CpuBackend::bit_linear_backward(ConstTensorView codes, ConstTensorView act_scale,
                                     std::span<const BitLinearGradient> gradients,
                                     GradientPrecision precision, TensorView dx) {
  const auto scratch = [](Scratch& memory, const Shape& s) {
    return TensorView(reinterpret_cast<std::byte*>(memory.get<float>(s.elements())), DType::f32, s);
  };
  BITNET_CHECK(codes.shape().rank() == 2 && act_scale.elements() == codes.dim(0),
               "codes {}, act_scale {}: expected [rows, K], [rows]", codes.shape().to_string(),
               act_scale.shape().to_string());
  BITNET_CHECK(!gradients.empty(), "bit_linear_backward of no products, expected at least one");
  BITNET_CHECK(computes(precision), "bf16 gradients on the CPU, expected fp32 or int8");
  const bool integer = precision == GradientPrecision::int8;
  bool accumulate_dx = false;
  if (integer) {
    accumulate_dx = integer_gradients(team(), *panel_, *gradient_, gradient_scratch_, codes,
                                      act_scale, gradients, dx);
  }
  TensorView x;
  for (const BitLinearGradient& g : gradients) {
    const PackedShape packed = packed_shape(g.packed, g.weight_scale);
    const Shape w_shape{packed.outputs, packed.inputs};
    const LinearShape shape = check_backward(codes.shape(), w_shape, g.dy, dx, g.dw);
    const bool dense_dx = dx && !(integer && packed.single_scale);
    const bool dense_dw = g.dw && !integer;
    TensorView w;
    if (dense_dx) {
      w = scratch(weight_scratch_, w_shape);
      dequantize_weights(g.packed, g.weight_scale, w);
    }
    if (dense_dw && !x) {
      x = scratch(input_scratch_, codes.shape());
      dequantize_activations(codes, act_scale, x);
    }
    dense_backward(team(), shape, x.as<float>().data(), w.as<float>().data(),
                   g.dy.as<float>().data(), dense_dx ? dx.as<float>().data() : nullptr,
                   accumulate_dx, dense_dw ? g.dw.as<float>().data() : nullptr);
    accumulate_dx = accumulate_dx || dense_dx;
  }
}

}  // namespace bitnet::cpu
