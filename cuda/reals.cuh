// SPDX-License-Identifier: MIT
// Elements of Reals (reals.h) as floats: widened exactly, rounded to nearest even as they are stored.
#pragma once

#include "cuda/gpu.h"
#include "cuda/reals.h"

namespace bitnet::cuda {

BITNET_DEVICE float load_real(const Reals& x, std::size_t at) {
  if (x.bf16) return __bfloat162float(static_cast<const __nv_bfloat16*>(x.data)[at]);
  return static_cast<const float*>(x.data)[at];
}
BITNET_DEVICE void store_real(const Reals& x, std::size_t at, float value) {
  if (x.bf16) {
    static_cast<__nv_bfloat16*>(x.data)[at] = __float2bfloat16_rn(value);
  } else {
    static_cast<float*>(x.data)[at] = value;
  }
}

// Four elements that are aligned as one.
BITNET_DEVICE void store_four(const Reals& x, std::size_t at, float4 four) {
  if (x.bf16) {
    gpu::store_vector(
        static_cast<__nv_bfloat16*>(x.data) + at,
        make_uint2(gpu::pack_bf16x2(four.x, four.y), gpu::pack_bf16x2(four.z, four.w)));
  } else {
    gpu::store_vector(static_cast<float*>(x.data) + at, four);
  }
}

}  // namespace bitnet::cuda
