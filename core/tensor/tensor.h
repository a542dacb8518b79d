// SPDX-License-Identifier: MIT
// Tensors: Tensor owns, TensorView and ConstTensorView borrow. Rows are contiguous, C order; there
// are no general strides.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "core/base/error.h"

namespace bitnet {

enum class DType : std::uint8_t { f32, bf16, f16, i32, i8, u8 };

constexpr std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::i8:
    case DType::u8:
      break;
  }
  return 1;
}
const char* to_string(DType dtype);  // "f32", …

template <typename T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::i32;
}
template <>
constexpr DType dtype_of<std::int8_t>() {
  return DType::i8;
}
template <>
constexpr DType dtype_of<std::uint8_t>() {
  return DType::u8;
}

// Up to four dimensions; the rank 0 shape has one element.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return dims_[static_cast<std::size_t>(axis)]; }
  std::int64_t elements() const;
  bool operator==(const Shape&) const = default;
  std::string to_string() const;  // "[4, 256]"

 private:
  std::array<std::int64_t, 4> dims_{};
  int rank_ = 0;
};

// A borrowed tensor; a default-constructed one is empty (data == nullptr) and stands for "absent".
template <typename Byte>
class BasicTensorView {
 public:
  BasicTensorView() = default;
  BasicTensorView(Byte* data, DType dtype, Shape shape)
      : data_(data), dtype_(dtype), shape_(shape) {}
  // A mutable view converts to a const one.
  template <typename Other>
  requires(!std::is_same_v<Other, Byte> && std::is_convertible_v<Other*, Byte*>)
      BasicTensorView(const BasicTensorView<Other>& o)
      : data_(o.raw()), dtype_(o.dtype()), shape_(o.shape()) {}

  explicit operator bool() const { return data_ != nullptr; }
  Byte* raw() const { return data_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(int axis) const { return shape_[axis]; }
  std::int64_t elements() const { return data_ == nullptr ? 0 : shape_.elements(); }
  std::int64_t bytes() const { return elements() * size_of(dtype_); }

  // Typed access; the type must be the stored one.
  template <typename T>
  auto as() const {
    using Element = std::conditional_t<std::is_const_v<Byte>, const T, T>;
    BITNET_CHECK(data_ == nullptr || dtype_ == dtype_of<T>(), "tensor holds {}, not {}",
                 bitnet::to_string(dtype_), bitnet::to_string(dtype_of<T>()));
    return std::span<Element>(reinterpret_cast<Element*>(data_),
                              static_cast<std::size_t>(elements()));
  }
  // The same bytes under another shape with as many elements.
  BasicTensorView reshaped(Shape shape) const {
    BITNET_CHECK(shape.elements() == shape_.elements(), "cannot view {} as {}", shape_.to_string(),
                 shape.to_string());
    return {data_, dtype_, shape};
  }
  // Rows [first, first + count) of the first axis.
  BasicTensorView rows(std::int64_t first, std::int64_t count) const;

 private:
  Byte* data_ = nullptr;
  DType dtype_ = DType::f32;
  Shape shape_;
};

using TensorView = BasicTensorView<std::byte>;
using ConstTensorView = BasicTensorView<const std::byte>;

// Memory of some device; frees itself.
using Storage = std::unique_ptr<std::byte, std::function<void(std::byte*)>>;

// An owned tensor, move-only. Backend::make_tensor creates one.
class Tensor {
 public:
  Tensor() = default;
  Tensor(Storage storage, DType dtype, Shape shape)
      : storage_(std::move(storage)), view_(storage_.get(), dtype, shape) {}

  TensorView view() { return view_; }
  ConstTensorView view() const { return view_; }
  operator TensorView() { return view_; }
  operator ConstTensorView() const { return view_; }
  explicit operator bool() const { return static_cast<bool>(view_); }
  const Shape& shape() const { return view_.shape(); }
  DType dtype() const { return view_.dtype(); }
  std::int64_t dim(int axis) const { return view_.dim(axis); }
  std::int64_t elements() const { return view_.elements(); }
  std::int64_t bytes() const { return view_.bytes(); }
  template <typename T>
  auto as() {
    return view_.as<T>();
  }
  template <typename T>
  auto as() const {
    return ConstTensorView(view_).as<T>();
  }

 private:
  Storage storage_;
  TensorView view_;
};

template <typename Byte>
BasicTensorView<Byte> BasicTensorView<Byte>::rows(std::int64_t first, std::int64_t count) const {
  const std::int64_t total = shape_[0];
  BITNET_CHECK(shape_.rank() >= 1 && first >= 0 && count >= 0 && first + count <= total,
               "rows [{}, {}) of a tensor with shape {}", first, first + count, shape_.to_string());
  const std::int64_t row_bytes = total == 0 ? 0 : bytes() / total;
  Shape shape = shape_.rank() == 1   ? Shape{count}
                : shape_.rank() == 2 ? Shape{count, shape_[1]}
                : shape_.rank() == 3 ? Shape{count, shape_[1], shape_[2]}
                                     : Shape{count, shape_[1], shape_[2], shape_[3]};
  return {data_ + first * row_bytes, dtype_, shape};
}

}  // namespace bitnet
