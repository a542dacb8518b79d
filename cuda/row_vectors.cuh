// SPDX-License-Identifier: MIT
// Quads of rows as arrays, and the quantisation of a row: from the largest magnitude to scale and
// codes, as core/quant's quantize_token() has it.
#pragma once

#include <type_traits>

#include "cuda/gpu.h"
#include "cuda/quads.cuh"
#include "cuda/row_operands.h"
#include "cuda/row_threads.cuh"

namespace bitnet::cuda {

using Quad = float[kQuad];

// Elements that are not in the row are 0.
template <typename T>
BITNET_DEVICE void load(const T* from, RowPart part, Quad& to) {
  const float4 x = load_quad(from, part.left, part.aligned);
  to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
}
// A tensor that may be absent, and is 1 everywhere then.
BITNET_DEVICE void load_or_one(const float* tensor, std::size_t at, RowPart part, Quad& to) {
  if (tensor == nullptr) {
    to[0] = to[1] = to[2] = to[3] = 1.0f;
  } else {
    load(tensor + at, part, to);
  }
}
template <typename T>
BITNET_DEVICE void store(T* to, RowPart part, const Quad& x) {
  store_quad(to, part.left, part.aligned, make_float4(x[0], x[1], x[2], x[3]));
}

// How a kernel takes the elements of Reals: float, __nv_bfloat16, or Either, which looks at each
// access, and is for what is rare or no more than stored.
struct Either {};

template <typename T>
BITNET_DEVICE void load_as(const ConstReals& from, std::size_t at, RowPart part, Quad& to) {
  if constexpr (!std::is_same_v<T, Either>) {
    load(static_cast<const T*>(from.data) + at, part, to);
  } else if (from.bf16) {
    load_as<__nv_bfloat16>(from, at, part, to);
  } else {
    load_as<float>(from, at, part, to);
  }
}
template <typename T>
BITNET_DEVICE void load_as(const PlainRows& rows, std::size_t at, RowPart part, Quad& to) {
  load_as<T>(rows.x, at, part, to);
}
template <typename T>
BITNET_DEVICE void store_as(const Reals& to, std::size_t at, RowPart part, const Quad& x) {
  if constexpr (!std::is_same_v<T, Either>) {
    store(static_cast<T*>(to.data) + at, part, x);
  } else if (to.bf16) {
    store_as<__nv_bfloat16>(to, at, part, x);
  } else {
    store_as<float>(to, at, part, x);
  }
}

// Host code: whether all quads of rows are aligned that are whole quads.
inline bool rows_aligned(const PlainRows& rows) { return quads_aligned(rows.x); }
inline bool rows_aligned(const GatedRows& rows) { return quads_aligned(rows.gate, rows.up); }

// Host code: whether all that is there is of the first one's type.
template <typename... T>
bool one_type(const ConstReals& first, const T&... others) {
  return ((others.data == nullptr || others.bf16 == first.bf16) && ...);
}

inline constexpr float kScaleEps = 1e-5f;  // as core/quant: keeps 1 / scale finite
inline constexpr float kActivationMax = 127.0f;

BITNET_DEVICE unsigned magnitude_bits(float x) { return __float_as_uint(x) & 0x7fffffffU; }

struct RowScale {
  float act_scale;
  float inv_scale;  // 0 for a row that is not finite: all its codes are 0 then
};
BITNET_DEVICE RowScale row_scale(unsigned absmax_bits) {
  const float absmax = __uint_as_float(max(absmax_bits, __float_as_uint(kScaleEps)));
  const bool finite = absmax_bits < 0x7f800000U;
  return {absmax / kActivationMax, finite ? kActivationMax / absmax : 0.0f};
}

// Of rows: aligned ones have whole quads only.
BITNET_DEVICE void load_codes(const std::int8_t* from, RowPart part, Quad& to) {
  if (part.aligned) {
    const unsigned codes = gpu::load_vector<unsigned>(from);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      to[i] = static_cast<float>(static_cast<std::int8_t>(codes >> (8 * i)));
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kQuad; ++i) to[i] = part.has(i) ? static_cast<float>(from[i]) : 0.0f;
}

// Ties to even; NaN gives 0. |x * inv_scale| <= 127 (1 + 2^-23), so the result fits a byte.
BITNET_DEVICE unsigned code_of(float x, float inv_scale) {
  return static_cast<unsigned>(__float2int_rn(x * inv_scale)) & 0xffU;
}
BITNET_DEVICE void store_codes(std::int8_t* to, RowPart part, const Quad& x, float inv_scale) {
  unsigned codes[kQuad];
#pragma unroll
  for (int i = 0; i < kQuad; ++i) codes[i] = code_of(x[i], inv_scale);
  if (part.aligned) {
    gpu::store_vector(to, codes[0] | codes[1] << 8 | codes[2] << 16 | codes[3] << 24);
    return;
  }
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    if (part.has(i)) to[i] = static_cast<std::int8_t>(codes[i]);
  }
}

}  // namespace bitnet::cuda
