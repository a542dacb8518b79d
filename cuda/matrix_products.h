// SPDX-License-Identifier: MIT
// Products by cuBLASLt: y[m, n] = sum over k of a[m, k] * b[n, k], y row by row. Operands are contiguous
// along k, the one layout that there is for int8; those of bf16 may also lie the other way, so that
// gradients need no transposed copies. What cuBLASLt needs to know of a product is found once for each
// shape.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include "cuda/reals.h"

namespace bitnet::cuda {

// Along which index an operand is contiguous: k, or m and n.
enum class OperandOrder : std::uint8_t { along_k, along_rows };

struct MatrixShape {
  std::int64_t m = 0, n = 0, k = 0;
  OperandOrder a = OperandOrder::along_k, b = OperandOrder::along_k;
  auto operator<=>(const MatrixShape&) const = default;
};

class MatrixProducts {
 public:
  explicit MatrixProducts(cudaStream_t stream);
  ~MatrixProducts();
  MatrixProducts(const MatrixProducts&) = delete;
  MatrixProducts& operator=(const MatrixProducts&) = delete;

  // Why cuBLASLt cannot be used on this machine; empty if it can. The first call opens it.
  const std::string& unusable();

  // Both return false, and have done nothing, where cuBLASLt is unusable or has no algorithm for the
  // shape: int8 needs operands along k, n and k multiples of 4; bf16 operands along rows need those a
  // multiple of 8; and all pointers must be aligned to 16 bytes.

  // Exact in int32.
  bool int8(const MatrixShape& shape, const std::int8_t* a, const std::int8_t* b, std::int32_t* y);
  // fp32 sums in an order of cuBLASLt's own, which depends on the shape, rounded once where y is
  // bf16; y += where accumulate.
  bool bf16(const MatrixShape& shape, const __nv_bfloat16* a, const __nv_bfloat16* b,
            const Reals& y, bool accumulate);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bitnet::cuda
