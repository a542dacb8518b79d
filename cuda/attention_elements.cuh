// SPDX-License-Identifier: MIT
// Eight neighbouring elements of a row as floats: 32 bytes of fp32 or 16 of fp16 or bf16, aligned to
// 16.
#pragma once

#include "cuda/gpu.h"
#include "cuda/reals.h"

namespace bitnet::cuda {

inline constexpr int kElements = 8;

BITNET_DEVICE void load_elements(const float* from, float (&to)[kElements]) {
  const float4 low = gpu::load_vector<float4>(from), high = gpu::load_vector<float4>(from + 4);
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}
BITNET_DEVICE void load_elements(const __half* from, float (&to)[kElements]) {
  const uint4 bits = gpu::load_vector<uint4>(from);
  const float2 pairs[4] = {gpu::unpack_f16x2(bits.x), gpu::unpack_f16x2(bits.y),
                           gpu::unpack_f16x2(bits.z), gpu::unpack_f16x2(bits.w)};
#pragma unroll
  for (int i = 0; i < 4; ++i) to[2 * i] = pairs[i].x, to[2 * i + 1] = pairs[i].y;
}

BITNET_DEVICE void load_elements(const __nv_bfloat16* from, float (&to)[kElements]) {
  const uint4 bits = gpu::load_vector<uint4>(from);
  const float2 pairs[4] = {gpu::unpack_bf16x2(bits.x), gpu::unpack_bf16x2(bits.y),
                           gpu::unpack_bf16x2(bits.z), gpu::unpack_bf16x2(bits.w)};
#pragma unroll
  for (int i = 0; i < 4; ++i) to[2 * i] = pairs[i].x, to[2 * i + 1] = pairs[i].y;
}
BITNET_DEVICE void load_elements(const ConstReals& from, std::size_t at, float (&to)[kElements]) {
  if (from.bf16) {
    load_elements(static_cast<const __nv_bfloat16*>(from.data) + at, to);
  } else {
    load_elements(static_cast<const float*>(from.data) + at, to);
  }
}

}  // namespace bitnet::cuda
