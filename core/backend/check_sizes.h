// SPDX-License-Identifier: MIT
// The check that operations on elements share.
#pragma once

#include <initializer_list>

#include "core/base/error.h"
#include "core/tensor/tensor.h"

namespace bitnet {

inline void check_same_size(const char* operation, std::initializer_list<ConstTensorView> views) {
  const ConstTensorView first = *views.begin();
  for (const ConstTensorView& view : views) {
    BITNET_CHECK(view.elements() == first.elements(), "{} of {} and {}: expected equal sizes",
                 operation, first.shape().to_string(), view.shape().to_string());
  }
}

}  // namespace bitnet
