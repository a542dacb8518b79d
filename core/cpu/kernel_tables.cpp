// SPDX-License-Identifier: MIT
// The choice of a kernel table by instruction set: only those of this architecture are linked in.
// AMX has tables of its own where it multiplies, and AVX-512's for everything else.
#include "core/cpu/float_kernels.h"
#include "core/cpu/gradient_kernels.h"
#include "core/cpu/head_kernels.h"
#include "core/cpu/integer_kernels.h"
#include "core/cpu/limit_kernels.h"
#include "core/cpu/panel_kernels.h"

#if defined(__x86_64__)
#define BITNET_X86(table) &table
#else
#define BITNET_X86(table) nullptr
#endif
#if defined(__aarch64__)
#define BITNET_ARM(table) &table
#else
#define BITNET_ARM(table) nullptr
#endif
#if defined(BITNET_AMX)
#define BITNET_TILES(table) &table
#else
#define BITNET_TILES(table) nullptr
#endif
#define BITNET_COMMON_TABLES(name) \
  &name##Scalar, BITNET_ARM(name##Neon), BITNET_X86(name##Avx2), BITNET_X86(name##Avx512)
#define BITNET_TABLES(name) BITNET_COMMON_TABLES(name), BITNET_X86(name##Avx512)
#define BITNET_TILE_TABLES(name) BITNET_COMMON_TABLES(name), BITNET_TILES(name##Amx)

namespace bitnet::cpu {
namespace {

template <typename Table>
const Table* choose(Isa isa, const Table* scalar, const Table* neon, const Table* avx2,
                    const Table* avx512, const Table* amx) {
  switch (isa) {
    case Isa::scalar:
      return scalar;
    case Isa::neon:
      return neon;
    case Isa::avx2:
      return avx2;
    case Isa::avx512vnni:
      return avx512;
    case Isa::amx:
      return amx;
  }
  return nullptr;
}

}  // namespace

const FloatKernels* float_kernels(Isa isa) {
  return choose<FloatKernels>(isa, BITNET_TABLES(kFloat));
}

const GradientKernels* gradient_kernels(Isa isa) {
  return choose<GradientKernels>(isa, BITNET_TABLES(kGradient));
}

const HeadKernels* head_kernels(Isa isa) { return choose<HeadKernels>(isa, BITNET_TABLES(kHead)); }

const IntegerKernels* integer_kernels(Isa isa) {
  return choose<IntegerKernels>(isa, BITNET_TABLES(kInteger));
}

const LimitKernels* limit_kernels(Isa isa) {
  return choose<LimitKernels>(isa, BITNET_TILE_TABLES(kLimits));
}

const PanelKernels* panel_kernels(Isa isa) {
  return choose<PanelKernels>(isa, BITNET_TILE_TABLES(kPanel));
}

}  // namespace bitnet::cpu
