// SPDX-License-Identifier: MIT
// Integer products of an int8 output head: few rows of activations against a large matrix that is
// read once, from memory. Every table computes the same integers. Only types and declarations here:
// ISA files must share no inline code.
#pragma once

#include <cstdint>

#include "core/cpu/cpu_isa.h"

namespace bitnet::cpu {

struct HeadKernels {
  const char* name;
  // acc[t * rows + n] = sum over k < columns of x[t * columns + k] * w[n * columns + k], for
  // t < tokens and n < rows. |w| <= 127 and columns <= 2^16, so int32 is exact: |sum| < 2^30. Few
  // tokens stream the weights from memory, one row after the other, fetched `ahead` bytes before
  // they are used; many find the rows of a call in the second-level cache.
  void (*dot)(const std::int8_t* w, std::int64_t rows, std::int64_t columns, const std::int8_t* x,
              std::int64_t tokens, std::int64_t ahead, std::int32_t* acc);
};

// One per file; only those of this architecture are linked in.
extern const HeadKernels kHeadScalar;
extern const HeadKernels kHeadAvx2;
extern const HeadKernels kHeadAvx512;
extern const HeadKernels kHeadNeon;

// The table of an available instruction set; nullptr when this build has none for it.
const HeadKernels* head_kernels(Isa isa);

}  // namespace bitnet::cpu
