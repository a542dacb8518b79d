// SPDX-License-Identifier: MIT
#include "core/cpu/integer_kernels.h"

namespace bitnet::cpu {

const IntegerKernels* integer_kernels(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return &kIntegerScalar;
#if defined(__x86_64__)
    case Isa::avx2:
      return &kIntegerAvx2;
    case Isa::avx512vnni:
      return &kIntegerAvx512;
#elif defined(__aarch64__)
    case Isa::neon:
      return &kIntegerNeon;
#endif
    default:
      return nullptr;
  }
}

}  // namespace bitnet::cpu
