// SPDX-License-Identifier: MIT
// Tensors that the contract marks "act": of f32, or of bf16.
#pragma once

#include <vector>

#include "tests/cuda_emulator/bf16_values.h"
#include "tests/support/tensors.h"

namespace bitnet::test {

// Rounded to the type.
inline Tensor act_to_device(Backend& backend, DType dtype, Shape shape,
                            const std::vector<float>& values) {
  if (dtype == DType::f32) return to_device(backend, shape, values);
  const std::vector<__nv_bfloat16> narrow = to_bf16(values);
  Tensor tensor = backend.make_tensor(DType::bf16, shape);
  BITNET_CHECK(tensor.bytes() == std::int64_t(2 * narrow.size()), "{} values for shape {}",
               narrow.size(), shape.to_string());
  backend.copy_from_host(narrow.data(), tensor);
  return tensor;
}

inline std::vector<float> act_floats(Backend& backend, ConstTensorView x) {
  if (x.dtype() == DType::f32) return floats_of(backend, x);
  std::vector<__nv_bfloat16> narrow(static_cast<std::size_t>(x.elements()));
  backend.copy_to_host(x, narrow.data());
  return to_floats(narrow);
}

// What a tensor of the type holds of the values.
inline std::vector<float> rounded_to(DType dtype, const std::vector<float>& values) {
  return dtype == DType::f32 ? values : rounded_to_bf16(values);
}

}  // namespace bitnet::test
