// SPDX-License-Identifier: MIT
#include "core/backend/backend.h"

namespace bitnet {

Tensor Backend::make_tensor(DType dtype, Shape shape) {
  return Tensor(allocate(shape.elements() * size_of(dtype)), dtype, shape);
}

}  // namespace bitnet
