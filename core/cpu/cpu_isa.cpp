// SPDX-License-Identifier: MIT
#include "core/cpu/cpu_isa.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(BITNET_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace bitnet::cpu {
namespace {

#if defined(__x86_64__)
// libgcc also asks the operating system (XGETBV) whether it saves the wide registers.
bool has_avx2() {
  constexpr unsigned kF16c = 1u << 29;  // of cpuid 1, ecx; Clang 14 does not know its name
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & kF16c) != 0;
}

bool has_avx512vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

bool made_by_amd() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0, &a, &b, &c, &d) != 0 && b == signature_AMD_ebx && d == signature_AMD_edx &&
         c == signature_AMD_ecx;
}

#if defined(BITNET_AMX)
bool has_amx_int8() {
  constexpr unsigned kTiles = 1u << 24, kInt8 = 1u << 25;  // of cpuid 7.0, edx
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx512vnni() && __builtin_cpu_supports("gfni") &&
         __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kTiles) != 0 && (d & kInt8) != 0;
}

// Linux saves the tiles (8 KB) of processes that asked for them. Asked once; threads that follow
// inherit the answer.
bool tiles_granted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}
#endif
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
    case Isa::amx:
      return "amx";
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
#if defined(BITNET_AMX)
    case Isa::amx:
      return has_amx_int8() && tiles_granted();
#endif
#elif defined(__aarch64__)
    case Isa::neon:
      return has_neon_dot_product();
#endif
    default:
      return false;
  }
}

bool prefetches_streams_itself() {
#if defined(__x86_64__)
  return made_by_amd();  // Zen 4: a third faster on one thread, a tenth on two
#else
  return false;
#endif
}

}  // namespace bitnet::cpu
