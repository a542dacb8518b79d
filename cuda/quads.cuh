// SPDX-License-Identifier: MIT
// Four neighbouring elements at a time, as floats: in one access where they are aligned and all
// there, else one by one. Either way a thread has the same four elements, so that results do not
// depend on where a row lies in memory.
#pragma once

#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"
#include "cuda/reals.h"

namespace bitnet::cuda {

inline constexpr int kQuad = 4;

template <typename Integer>
constexpr Integer quads_in(Integer elements) {
  return (elements + kQuad - 1) / kQuad;
}

// Host code: whether all quads from here are aligned, of pointers and of Reals. Null is.
template <typename T>
bool quad_aligned(const T* x) {
  return reinterpret_cast<std::uintptr_t>(x) % (kQuad * sizeof(T)) == 0;
}
inline bool quad_aligned(const ConstReals& x) { return x.aligned(kQuad * x.element_bytes()); }
template <typename... T>
bool quads_aligned(const T&... x) {
  return (quad_aligned(x) && ...);
}

// Where one thread works on each quad of an array: the blocks, and a thread's first element.
template <int kThreads>
dim3 quad_blocks(std::int64_t elements) {
  return dim3(static_cast<unsigned>((quads_in(elements) + kThreads - 1) / kThreads));
}
template <int kThreads>
BITNET_DEVICE std::int64_t quad_of_thread() {
  return (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kQuad;
}

namespace detail {

BITNET_DEVICE float widened(float x) { return x; }
BITNET_DEVICE float widened(__half x) { return __half2float(x); }
BITNET_DEVICE float widened(__nv_bfloat16 x) { return __bfloat162float(x); }
// Nearest even; beyond the range infinity.
BITNET_DEVICE void narrow(float x, float& to) { to = x; }
BITNET_DEVICE void narrow(float x, __half& to) { to = __float2half_rn(x); }
BITNET_DEVICE void narrow(float x, __nv_bfloat16& to) { to = __float2bfloat16_rn(x); }

BITNET_DEVICE float4 load_whole(const float* from) { return gpu::load_vector<float4>(from); }
BITNET_DEVICE float4 load_whole(const __half* from) {
  const uint2 bits = gpu::load_vector<uint2>(from);
  const float2 low = gpu::unpack_f16x2(bits.x), high = gpu::unpack_f16x2(bits.y);
  return make_float4(low.x, low.y, high.x, high.y);
}
BITNET_DEVICE float4 load_whole(const __nv_bfloat16* from) {
  const uint2 bits = gpu::load_vector<uint2>(from);
  const float2 low = gpu::unpack_bf16x2(bits.x), high = gpu::unpack_bf16x2(bits.y);
  return make_float4(low.x, low.y, high.x, high.y);
}
BITNET_DEVICE void store_whole(float* to, float4 x) { gpu::store_vector(to, x); }
BITNET_DEVICE void store_whole(__half* to, float4 x) {
  gpu::store_vector(to, make_uint2(gpu::pack_f16x2(x.x, x.y), gpu::pack_f16x2(x.z, x.w)));
}
BITNET_DEVICE void store_whole(__nv_bfloat16* to, float4 x) {
  gpu::store_vector(to, make_uint2(gpu::pack_bf16x2(x.x, x.y), gpu::pack_bf16x2(x.z, x.w)));
}

}  // namespace detail

// Of the `left` elements at `from` the first four; `absent` for those that are not there.
template <typename T>
BITNET_DEVICE float4 load_quad(const T* from, std::int64_t left, bool aligned,
                               float absent = 0.0f) {
  if (aligned && left >= kQuad) return detail::load_whole(from);
  float4 x = make_float4(absent, absent, absent, absent);
  if (left > 0) x.x = detail::widened(from[0]);
  if (left > 1) x.y = detail::widened(from[1]);
  if (left > 2) x.z = detail::widened(from[2]);
  if (left > 3) x.w = detail::widened(from[3]);
  return x;
}

template <typename T>
BITNET_DEVICE void store_quad(T* to, std::int64_t left, bool aligned, float4 x) {
  if (aligned && left >= kQuad) {
    detail::store_whole(to, x);
    return;
  }
  if (left > 0) detail::narrow(x.x, to[0]);
  if (left > 1) detail::narrow(x.y, to[1]);
  if (left > 2) detail::narrow(x.z, to[2]);
  if (left > 3) detail::narrow(x.w, to[3]);
}

// The same of Reals or ConstReals, from element `at` on.
template <typename Void>
BITNET_DEVICE float4 load_quad(const BasicReals<Void>& x, std::size_t at, int left, bool aligned) {
  return x.bf16 ? load_quad(static_cast<const __nv_bfloat16*>(x.data) + at, left, aligned)
                : load_quad(static_cast<const float*>(x.data) + at, left, aligned);
}
BITNET_DEVICE void store_quad(const Reals& x, std::size_t at, int left, bool aligned, float4 y) {
  if (x.bf16) {
    store_quad(static_cast<__nv_bfloat16*>(x.data) + at, left, aligned, y);
  } else {
    store_quad(static_cast<float*>(x.data) + at, left, aligned, y);
  }
}

}  // namespace bitnet::cuda
