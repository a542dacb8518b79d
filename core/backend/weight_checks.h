// SPDX-License-Identifier: MIT
// What weights and their packed codes must be to each other on every backend. Both return the shape of the packed matrix, and throw ContractError.
#pragma once

#include "core/backend/packed_shape.h"
#include "core/quant/ternary.h"

namespace bitnet {

PackedShape check_weights(ConstTensorView w, ConstTensorView packed, ConstTensorView weight_scale);
PackedShape check_quantize_weights(const WeightQuantizer& q, ConstTensorView w,
                                   ConstTensorView packed, ConstTensorView weight_scale,
                                   ConstTensorView flips);

inline void check_count_codes(std::span<const ConstTensorView> packed,
                              std::span<const CodeCounts> counts) {
  BITNET_CHECK(counts.size() == packed.size(), "{} counts of the codes of {} matrices",
               counts.size(), packed.size());
}

}  // namespace bitnet
