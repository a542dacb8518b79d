// SPDX-License-Identifier: MIT
// Numbers for tests: repeatable random ones, and their way to a backend and back.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend/backend.h"
#include "core/base/random.h"

namespace bitnet::test {

// Normal numbers with the given mean and deviation, rounded to fp32 so that a float backend and a
// double reference read the same.
inline std::vector<double> random_numbers(std::uint32_t seed, std::int64_t count,
                                          double deviation = 1.0, double mean = 0.0) {
  const RandomStream stream{seed, RandomPurpose::test, 0};
  std::vector<double> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(mean + deviation * stream.normal(i));
  return x;
}

inline std::vector<std::int32_t> random_tokens(std::uint32_t seed, std::int64_t count,
                                               std::int64_t vocabulary) {
  const RandomStream stream{seed, RandomPurpose::test, 1};
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(stream.below(i, static_cast<std::uint64_t>(vocabulary)));
  return tokens;
}

template <typename T>
Tensor to_device(Backend& backend, Shape shape, const std::vector<T>& values) {
  BITNET_CHECK(shape.elements() == std::int64_t(values.size()), "{} values for shape {}",
               values.size(), shape.to_string());
  Tensor tensor = backend.make_tensor(dtype_of<T>(), shape);
  backend.copy_from_host(values.data(), tensor);
  return tensor;
}

inline Tensor to_device(Backend& backend, Shape shape, const std::vector<double>& values) {
  return to_device(backend, shape, std::vector<float>(values.begin(), values.end()));
}

template <typename T>
std::vector<T> to_host(Backend& backend, ConstTensorView x) {
  BITNET_CHECK(x.dtype() == dtype_of<T>(), "a tensor of {}", to_string(x.dtype()));
  std::vector<T> values(static_cast<std::size_t>(x.elements()));
  backend.copy_to_host(x, values.data());
  return values;
}

inline std::vector<float> floats_of(Backend& backend, ConstTensorView x) {
  return to_host<float>(backend, x);
}

inline std::vector<double> doubles_of(Backend& backend, ConstTensorView x) {
  const std::vector<float> values = floats_of(backend, x);
  return {values.begin(), values.end()};
}

}  // namespace bitnet::test
