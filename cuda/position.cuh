// SPDX-License-Identifier: MIT
// A Position as a kernel sees it.
#pragma once

#include "cuda/gpu.h"
#include "cuda/position.h"

namespace bitnet::cuda {

BITNET_DEVICE int position_of(Position position) {
  return (position.base == nullptr ? 0 : *position.base) + position.offset;
}

}  // namespace bitnet::cuda
