// SPDX-License-Identifier: MIT
// The plain twin of the head's kernels: what the tests compare the vector ones with, and what runs
// where there is no other.
#include "core/cpu/head_kernels.h"

namespace bitnet::cpu {
namespace {

void dot(const std::int8_t* w, std::int64_t rows, std::int64_t columns, const std::int8_t* x,
         std::int64_t tokens, std::int64_t /*ahead*/, std::int32_t* acc) {
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::int32_t sum = 0;
      for (std::int64_t k = 0; k < columns; ++k) sum += x[t * columns + k] * w[n * columns + k];
      acc[t * rows + n] = sum;
    }
  }
}

}  // namespace

const HeadKernels kHeadScalar = {.name = "scalar", .dot = dot};

}  // namespace bitnet::cpu
