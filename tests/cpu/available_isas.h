// SPDX-License-Identifier: MIT
// The instruction sets on which a kernel test can run here.
#pragma once

#include <vector>

#include "core/cpu/cpu_isa.h"

namespace bitnet::test {

inline std::vector<cpu::Isa> available_isas() {
  std::vector<cpu::Isa> isas;
  for (const cpu::Isa isa :
       {cpu::Isa::scalar, cpu::Isa::neon, cpu::Isa::avx2, cpu::Isa::avx512vnni, cpu::Isa::amx}) {
    if (cpu::isa_available(isa)) isas.push_back(isa);
  }
  return isas;
}

}  // namespace bitnet::test
