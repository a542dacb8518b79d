// SPDX-License-Identifier: MIT
#include "core/backend/backend.h"

#include "core/backend/attention_checks.h"

namespace bitnet {

Tensor Backend::make_tensor(DType dtype, Shape shape) {
  return Tensor(allocate(shape.elements() * size_of(dtype)), dtype, shape);
}

Tensor Backend::adopt(std::shared_ptr<const void>, const void* bytes, DType dtype, Shape shape) {
  Tensor tensor = make_tensor(dtype, shape);
  copy_from_host(bytes, tensor);
  return tensor;
}

void Backend::repeat(std::unique_ptr<RecordedOperations>&, std::optional<std::int64_t>,
                     const std::function<void()>& operations) {
  operations();
}

void Backend::cached_attention(const AttentionShape& shape, TensorView q, TensorView k,
                               ConstTensorView v, ConstTensorView table, TensorView keys,
                               TensorView values, TensorView out) {
  check_cached_attention(shape, keys);
  rope_append(q, k, v, table, shape.first_position, keys, values);
  attention(shape, q, cached_tokens(shape, keys), cached_tokens(shape, values), out, {});
}

CodeCounts Backend::count_codes(ConstTensorView packed) {
  CodeCounts counts;
  count_codes(std::span(&packed, 1), std::span(&counts, 1));
  return counts;
}

double Backend::sum(ConstTensorView x) {
  double sum = 0;
  sums(std::span(&x, 1), {}, std::span(&sum, 1));
  return sum;
}

double Backend::sum_of_squares(ConstTensorView x) {
  double sum = 0;
  sums({}, std::span(&x, 1), std::span(&sum, 1));
  return sum;
}

}  // namespace bitnet
