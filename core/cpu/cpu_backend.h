// SPDX-License-Identifier: MIT
// The CPU backend: the Backend contract over a table of kernels for the instruction set found at
// run time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/backend/backend.h"

namespace bitnet {

// Instruction sets this processor can run, best first; "scalar" is always the last. Names:
// "amx", "avx512vnni", "avx2", "neon", "scalar".
std::vector<std::string> available_cpu_isas();

// The instruction set that `isa` means: "" for the environment variable BITNET_CPU_ISA if set, else
// the best. Throws UsageError for an unknown name or one that this processor lacks, listing what is
// available.
std::string chosen_cpu_isa(const std::string& isa = "");

// threads: 0 for all processors of this process. isa: see chosen_cpu_isa().
std::unique_ptr<Backend> make_cpu_backend(int threads = 0, const std::string& isa = "");

}  // namespace bitnet
