// SPDX-License-Identifier: MIT
#include "core/backend/backend.h"

namespace bitnet {

Tensor Backend::make_tensor(DType dtype, Shape shape) {
  return Tensor(allocate(shape.elements() * size_of(dtype)), dtype, shape);
}

Tensor Backend::adopt(std::shared_ptr<const void>, const void* bytes, DType dtype, Shape shape) {
  Tensor tensor = make_tensor(dtype, shape);
  copy_from_host(bytes, tensor);
  return tensor;
}

}  // namespace bitnet
