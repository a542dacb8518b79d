// SPDX-License-Identifier: MIT
#include "core/backend/element_checks.h"

#include <cmath>

#include "core/base/error.h"

namespace bitnet {

void check_same_size(const char* operation, std::initializer_list<ConstTensorView> views) {
  const ConstTensorView first = *views.begin();
  for (const ConstTensorView& view : views) {
    BITNET_CHECK(view.elements() == first.elements(), "{} of {} and {}: expected equal sizes",
                 operation, first.shape().to_string(), view.shape().to_string());
  }
}

void check_embedding(ConstTensorView tokens, ConstTensorView table, ConstTensorView y) {
  BITNET_CHECK(table.shape().rank() == 2 && y.shape() == (Shape{tokens.elements(), table.dim(1)}),
               "embedding of {} tokens, table {}, rows {}: expected [V, D] and [rows, D]",
               tokens.elements(), table.shape().to_string(), y.shape().to_string());
}

void check_convert(ConstTensorView x, ConstTensorView y) {
  check_same_size("convert", {x, y});
  const bool narrows = x.dtype() == DType::f32 && y.dtype() == DType::f16;
  const bool widens =
      (x.dtype() == DType::f16 || x.dtype() == DType::bf16) && y.dtype() == DType::f32;
  BITNET_CHECK(narrows || widens,
               "cannot convert {} to {}, expected f32 to f16, or f16 or bf16 to f32",
               to_string(x.dtype()), to_string(y.dtype()));
}

void check_blend(ConstTensorView x, ConstTensorView quantized, ConstTensorView out) {
  BITNET_CHECK(quantized.elements() == x.elements() && out.elements() == x.elements(),
               "cannot blend {} with {} into {}", x.shape().to_string(),
               quantized.shape().to_string(), out.shape().to_string());
}

std::optional<std::uint32_t> check_dropout(ConstTensorView x, double p, std::uint64_t first,
                                           ConstTensorView y) {
  check_same_size("dropout", {x, y});
  BITNET_CHECK(p >= 0 && p < 1, "dropout with probability {}, expected 0 <= p < 1", p);
  BITNET_CHECK(first % 4 == 0, "dropout from random index {}, expected a multiple of 4", first);
  const auto dropped = static_cast<std::uint64_t>(std::ceil(p * 0x1.0p32));
  if (dropped == 0) return std::nullopt;
  return static_cast<std::uint32_t>(dropped - 1);
}

}  // namespace bitnet
