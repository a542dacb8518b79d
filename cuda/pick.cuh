// SPDX-License-Identifier: MIT
// One of a few parameters of a kernel, by an index known as it runs: by selecting, since an array that
// is indexed would be copied into local memory first.
#pragma once

#include "cuda/gpu.h"

namespace bitnet::cuda {

template <typename T, int kCount>
BITNET_DEVICE T pick(const T (&from)[kCount], unsigned index) {
  T picked = from[0];
#pragma unroll
  for (unsigned i = 1; i < kCount; ++i) {
    if (index == i) picked = from[i];
  }
  return picked;
}

}  // namespace bitnet::cuda
