// SPDX-License-Identifier: MIT
// Kernels that do one thing as often as a core can and nothing else: read memory, multiply and add.
// They measure what the kernels that do the work could reach at most.
// Only types and declarations here: ISA files must share no inline code.
#pragma once

#include <cstdint>

#include "core/cpu/cpu_isa.h"

namespace bitnet::cpu {

// A null function stands for "this table has no more".
struct ReadKernel {
  const char* name;
  // Reads every byte once, in ascending order; the result depends on all of them. `bytes` is a
  // multiple of kReadBlock, data aligned to 64.
  std::uint64_t (*read)(const std::uint8_t* data, std::int64_t bytes);
};

struct ComputeKernel {
  const char* name;
  std::int64_t operations;  // of a round: a multiplication and an addition are two
  // The result depends on every round.
  std::uint32_t (*run)(std::int64_t rounds);
};

inline constexpr std::int64_t kReadBlock = 1024;
inline constexpr std::int64_t kReadAhead = 4096;  // bytes that a prefetching read looks ahead

// Additions that wait for each other after each line (64 bytes) of a paced read. A core that asks
// for lines as quickly as it can gets ahead of its own prefetches and fills the buffers that these
// need; one that has some work to do on each line reads up to a fifth more.
inline constexpr int kPace = 8;

// Where a machine has several ways to do the same, the quickest one is its limit.
struct LimitKernels {
  const char* name;
  ReadKernel reads[3];
  ComputeKernel fp32[2];
  ComputeKernel int8[2];  // products of signed bytes by signed bytes or by codes 0..2
};

// One per file; only those of this architecture are linked in.
extern const LimitKernels kLimitsScalar;
extern const LimitKernels kLimitsAvx2;
extern const LimitKernels kLimitsAvx512;
extern const LimitKernels kLimitsAmx;
extern const LimitKernels kLimitsNeon;

// The table of an available instruction set; nullptr when this build has none for it.
const LimitKernels* limit_kernels(Isa isa);

}  // namespace bitnet::cpu
