// SPDX-License-Identifier: MIT
// The lower bound of a weight scale, as in core/quant/ternary.h.
#pragma once

#include "cuda/gpu.h"

namespace bitnet::cuda {

inline constexpr float kWeightScaleEps = 1e-5f;
inline constexpr unsigned kMagnitudeMask = 0x7fffffffU, kInfinityBits = 0x7f800000U;

// NaN stays NaN.
BITNET_DEVICE float bounded_scale(float scale) {
  return scale < kWeightScaleEps ? kWeightScaleEps : scale;
}

}  // namespace bitnet::cuda
