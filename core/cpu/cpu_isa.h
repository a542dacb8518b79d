// SPDX-License-Identifier: MIT
// Which instruction sets this build has kernels for and this processor can run. No dependencies:
// also built for the kernel tests of other architectures.
#pragma once

namespace bitnet::cpu {

enum class Isa { scalar, neon, avx2, avx512vnni, amx };

const char* to_string(Isa isa);  // "scalar", "neon", "avx2", "avx512vnni", "amx"
bool isa_available(Isa isa);  // compiled in, and the processor and the operating system support it

// Whether the processor itself fetches a stream from memory ahead of its use better than prefetch
// instructions do.
bool prefetches_streams_itself();

}  // namespace bitnet::cpu
