// SPDX-License-Identifier: MIT
// Matrices of f32 or bf16, as the activations of a training are. Kernels whose work is elsewhere
// ask for the type as they run: a copy of the kernel for each type would save them nothing.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace bitnet::cuda {

template <typename Void>
struct BasicReals {
  template <typename T>
  using Element = std::conditional_t<std::is_const_v<Void>, const T, T>;

  Void* data = nullptr;
  bool bf16 = false;  // f32 otherwise

  BasicReals() = default;
  BasicReals(std::nullptr_t) {}
  BasicReals(Element<float>* x) : data(x) {}
  BasicReals(Element<__nv_bfloat16>* x) : data(x), bf16(true) {}
  // What may be written may be read.
  template <typename Other>
  requires(!std::is_same_v<Other, Void> && std::is_convertible_v<Other*, Void*>)
      BasicReals(const BasicReals<Other>& o)
      : data(o.data), bf16(o.bf16) {}

  // For host code that has asked for the type.
  template <typename T>
  Element<T>* as() const {
    return static_cast<Element<T>*>(data);
  }
  std::size_t element_bytes() const { return bf16 ? sizeof(__nv_bfloat16) : sizeof(float); }
  bool aligned(std::size_t bytes) const {
    return reinterpret_cast<std::uintptr_t>(data) % bytes == 0;
  }
  // From an element on.
  BasicReals from(std::int64_t element) const {
    BasicReals rest = *this;
    using Byte = std::conditional_t<std::is_const_v<Void>, const std::byte, std::byte>;
    rest.data = static_cast<Byte*>(data) + element * static_cast<std::int64_t>(element_bytes());
    return rest;
  }
};

using Reals = BasicReals<void>;
using ConstReals = BasicReals<const void>;

}  // namespace bitnet::cuda
