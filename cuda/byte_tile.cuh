// SPDX-License-Identifier: MIT
// A tile of bytes in shared memory that is read along its columns: 8 * kLaneRows rows of 128 bytes.
// A thread gets a word (4 columns) of each of kLaneRows successive rows; the 8 lanes beside it
// the rest of the tile's rows, the others of its warp the neighbouring words.
#pragma once

#include "cuda/gpu.h"

namespace bitnet::cuda {

template <int kLaneRows>
struct ByteTile {
  static constexpr int kThreads = 256;
  static constexpr int kRows = 8 * kLaneRows, kColumns = 128;
  static constexpr int kBytes = kRows * kColumns;

  // Of the 16 bytes `chunk` of a row. Exchanging chunks by lane sends the 32 words that a warp reads
  // at once to different banks.
  BITNET_DEVICE static int offset(int row, int chunk) {
    return row * kColumns + (chunk ^ (row / kLaneRows)) * 16;
  }
  // All threads of the block copy matrix [rows, columns], from its element (first_row,
  // first_column); `outside` stands for what is not there. columns is a multiple of 16.
  BITNET_DEVICE static void load(std::uint8_t* tile, const void* matrix, int first_row,
                                 int first_column, int rows, int columns, std::uint32_t outside) {
#pragma unroll
    for (int part = static_cast<int>(threadIdx.x); part < kBytes / 16; part += kThreads) {
      const int row = part / 8, chunk = part % 8, column = first_column + chunk * 16;
      uint4 bytes = make_uint4(outside, outside, outside, outside);
      if (first_row + row < rows && column < columns) {
        bytes =
            gpu::load_vector<uint4>(static_cast<const std::uint8_t*>(matrix) +
                                    static_cast<std::size_t>(first_row + row) * columns + column);
      }
      gpu::store_vector(tile + offset(row, chunk), bytes);
    }
    __syncthreads();
  }
  // This thread's rows and columns of the tile.
  BITNET_DEVICE static int row() { return static_cast<int>(threadIdx.x) % 8 * kLaneRows; }
  BITNET_DEVICE static int column() { return static_cast<int>(threadIdx.x) / 8 * 4; }
  BITNET_DEVICE static std::uint32_t word(const std::uint8_t* tile, int row) {
    return gpu::load_vector<std::uint32_t>(tile + offset(row, column() / 16) + column() % 16);
  }
};

}  // namespace bitnet::cuda
