// SPDX-License-Identifier: MIT
// Floats of a test as bf16 and back; what a kernel reads and writes in bf16 are these.
#pragma once

#include <cuda_bf16.h>

#include <type_traits>
#include <vector>

namespace bitnet::test {

// To nearest even.
inline std::vector<__nv_bfloat16> to_bf16(const std::vector<float>& x) {
  std::vector<__nv_bfloat16> y;
  for (const float v : x) y.push_back(__float2bfloat16_rn(v));
  return y;
}
inline std::vector<float> to_floats(const std::vector<__nv_bfloat16>& x) {
  std::vector<float> y;
  for (const __nv_bfloat16 v : x) y.push_back(__bfloat162float(v));
  return y;
}
inline std::vector<float> rounded_to_bf16(const std::vector<float>& x) {
  return to_floats(to_bf16(x));
}

// For tests of either type: floats in memory of T, and back.
template <typename T>
std::vector<T> stored(const std::vector<float>& x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return to_bf16(x);
  }
}
inline std::vector<float> to_floats(const std::vector<float>& x) { return x; }

}  // namespace bitnet::test
