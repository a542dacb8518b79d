// SPDX-License-Identifier: MIT
// The backends on which a test of the Backend contract, or of what is built on it, runs. The same
// tests are compiled into two programs: bitnet_tests links the list of tests/cpu/test_backends.cpp,
// bitnet_cuda_tests that of tests/cuda/test_backends.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "tests/support/catch.h"

namespace bitnet::test {

struct TestBackend {
  std::string name;  // "cpu avx2, 3 threads"
  std::function<std::unique_ptr<Backend>()> make;

  // What bounds are made of. Relative errors, at most: of an operand of a product of floats (linear,
  // attention; 0 where operands stay fp32), and of a step of such a product's sum.
  double operand_rounding = 0;
  double sum_rounding = 0x1p-24;
  double function_roundings = 2;  // of exp and erf, in units of 2^-24
  // Attention of up to so many queries takes its operands as they are, whatever operand_rounding is.
  // A query's bits do not depend on how many are given, all calls being on one side of this.
  std::int64_t few_queries = 0;
  // In what bit_linear_backward() gives the gradients of the dequantised operands, and in what not.
  GradientPrecision gradients = GradientPrecision::fp32;
  GradientPrecision refused_gradients = GradientPrecision::bf16;

  // Relative to sum |a b|: a sum of n products of operands of which `rounded` are rounded, in any
  // order, with one rounding of the result.
  double product_bound(std::int64_t n, int rounded = 2) const {
    const double u = operand_rounding;
    return rounded * u * (1 + u) + static_cast<double>(n + 1) * sum_rounding;
  }
};

// First the one that a user gets.
std::vector<TestBackend> test_backends();

inline TestBackend default_backend() { return test_backends().front(); }

// Each in turn, the test case being run once for each.
inline TestBackend generated_backend() { return GENERATE(from_range(test_backends())); }

inline std::ostream& operator<<(std::ostream& out, const TestBackend& b) { return out << b.name; }

}  // namespace bitnet::test
