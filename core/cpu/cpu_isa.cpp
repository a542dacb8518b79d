// SPDX-License-Identifier: MIT
#include "core/cpu/cpu_isa.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace bitnet::cpu {
namespace {

#if defined(__x86_64__)
// libgcc also asks the operating system (XGETBV) whether it saves the wide registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

bool has_avx512vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}
#elif defined(__aarch64__)
bool has_neon_dot_product() {
  constexpr unsigned long kDotProduct = 1ul << 20;  // HWCAP_ASIMDDP of Linux
  return (getauxval(AT_HWCAP) & kDotProduct) != 0;
}
#endif

}  // namespace

const char* to_string(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::neon:
      return "neon";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512vnni:
      return "avx512vnni";
  }
  return "?";
}

bool isa_available(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return true;
#if defined(__x86_64__)
    case Isa::avx2:
      return has_avx2();
    case Isa::avx512vnni:
      return has_avx512vnni();
#elif defined(__aarch64__)
    case Isa::neon:
      return has_neon_dot_product();
#endif
    default:
      return false;
  }
}

}  // namespace bitnet::cpu
