// SPDX-License-Identifier: MIT
// What the tests of products in bf16 share. Bounds: an operand's rounding to bf16 is within 2^-8 of
// it; a sum of n products in fp32, in any order and by any rounding, within (n + 1) 2^-23 sum |a b|.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/cuda_backend.h"
#include "tests/cuda_emulator/emulator.h"

namespace bitnet::test {

inline constexpr double kSumRounding = 0x1p-23;

// Of sum |a b|, for n products of operands of which `rounded` are rounded to bf16.
inline double product_bound(int rounded, std::int64_t n) {
  constexpr double kNarrow = 0x1p-8;
  return rounded * kNarrow * (1 + kNarrow) + static_cast<double>(n + 2) * kSumRounding;
}

// A device of its own, with cuBLASLt or without.
inline std::unique_ptr<Backend> new_backend(bool with_cublaslt) {
  emulator::reset();
  emulator::config().device.has_cublaslt = with_cublaslt;
  return make_cuda_backend();
}

inline std::vector<float> as_floats(const std::vector<double>& x) { return {x.begin(), x.end()}; }

}  // namespace bitnet::test
