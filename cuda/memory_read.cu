// SPDX-License-Identifier: MIT
// Blocks that stay read tiles in turn, each thread 8 vectors of 16 bytes that are in flight
// together. A round begins one tile further than the one before: no multiprocessor then reads what
// its own first-level cache still holds.
#include "cuda/memory_read.h"

#include "cuda/gpu.h"

namespace bitnet::cuda {
namespace {

constexpr int kVectors = 8;  // of a thread in a tile
constexpr int kVectorBytes = 16;
constexpr int kResidentBlocks = 4;  // of a multiprocessor: 128 KB in flight, registers for them
static_assert(kReadTile == kReadThreads * kVectors * kVectorBytes);

__global__ void __launch_bounds__(kReadThreads, kResidentBlocks)
    memory_read_kernel(const std::uint8_t* from, int tiles, int rounds, std::uint32_t* sums) {
  std::uint32_t sum = 0;
  for (int round = 0; round < rounds; ++round) {
    const int shift = round % tiles;
    for (int tile = static_cast<int>(blockIdx.x); tile < tiles;
         tile += static_cast<int>(gridDim.x)) {
      const int shifted = tile < tiles - shift ? tile + shift : tile - (tiles - shift);
      const std::uint8_t* at =
          from + shifted * kReadTile + static_cast<int>(threadIdx.x) * kVectorBytes;
      uint4 vectors[kVectors];
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        vectors[i] = gpu::load_vector<uint4>(at + i * kReadThreads * kVectorBytes);
      }
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        sum += vectors[i].x + vectors[i].y + vectors[i].z + vectors[i].w;
      }
    }
  }
  sums[blockIdx.x * kReadThreads + threadIdx.x] = sum;
}

}  // namespace

int memory_read_blocks(int multiprocessors) { return multiprocessors * kResidentBlocks; }

cudaError_t memory_read(const MemoryRead& op, cudaStream_t stream) {
  const std::int64_t tiles = op.bytes / kReadTile;
  if (tiles < 1 || tiles >> 30 != 0 || op.bytes % kReadTile != 0 || op.rounds < 1 ||
      op.blocks < 1 || op.blocks >> 20 != 0) {
    return cudaErrorInvalidValue;
  }
  return gpu::launch(memory_read_kernel, dim3(static_cast<unsigned>(op.blocks)), dim3(kReadThreads),
                     0, stream, op.from, static_cast<int>(tiles), op.rounds, op.sums);
}

}  // namespace bitnet::cuda
