// SPDX-License-Identifier: MIT
// The CUDA backend. Its products of floats round their operands to bf16 (8 bits of significand; 2^-8
// covers truncation too) and sum in fp32 on tensor cores, which need not round to nearest: 2^-23 a
// step.
#include "cuda/cuda_backend.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/support/backends.h"

namespace bitnet::test {

std::vector<TestBackend> test_backends() {
  TestBackend b;
  b.name = "cuda";
  b.make = [] {
    emulator::config() = {};  // whatever the last test made of it
    return make_cuda_backend();
  };
  b.operand_rounding = 0x1p-8;
  b.sum_rounding = 0x1p-23;
  b.function_roundings = 4;  // 2 ulp, CUDA C++ Programming Guide
  b.few_queries = 16;
  b.gradients = GradientPrecision::bf16;
  b.refused_gradients = GradientPrecision::fp32;
  return {b};
}

}  // namespace bitnet::test
