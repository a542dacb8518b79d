// SPDX-License-Identifier: MIT
// Reads device memory and does nothing else: how fast that goes is the limit of all that is bound
// by memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bitnet::cuda {

inline constexpr int kReadThreads = 256;  // of a block
inline constexpr std::int64_t kReadTile =
    kReadThreads * 8 * 16;  // bytes that a block reads at once

struct MemoryRead {
  const std::uint8_t* from;  // aligned to 16 bytes
  std::int64_t bytes;        // a multiple of kReadTile
  int rounds;                // how often all of it is read
  int blocks;
  std::uint32_t* sums;  // [blocks * kReadThreads]; all together: of the 32-bit words, modulo 2^32
};

// As many blocks as a device can run at once.
int memory_read_blocks(int multiprocessors);

// cudaErrorInvalidValue for a shape that is not supported.
cudaError_t memory_read(const MemoryRead& op, cudaStream_t stream);

}  // namespace bitnet::cuda
