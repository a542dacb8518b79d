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

// Element `at` and, where there is one, the next: in one access if they are `paired`, which means
// that both are there and aligned as one.
BITNET_DEVICE float2 load_pair(const Reals& x, std::size_t at, bool paired, bool has_next) {
  if (!paired) return make_float2(load_real(x, at), has_next ? load_real(x, at + 1) : 0.0f);
  if (!x.bf16) return gpu::load_vector<float2>(static_cast<const float*>(x.data) + at);
  return gpu::unpack_bf16x2(
      gpu::load_vector<std::uint32_t>(static_cast<const __nv_bfloat16*>(x.data) + at));
}
BITNET_DEVICE void store_pair(const Reals& x, std::size_t at, bool paired, bool has_next,
                              float2 pair) {
  if (!paired) {
    store_real(x, at, pair.x);
    if (has_next) store_real(x, at + 1, pair.y);
  } else if (x.bf16) {
    gpu::store_vector(static_cast<__nv_bfloat16*>(x.data) + at, gpu::pack_bf16x2(pair.x, pair.y));
  } else {
    gpu::store_vector(static_cast<float*>(x.data) + at, pair);
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
