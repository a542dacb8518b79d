// SPDX-License-Identifier: MIT
#include "cuda/unpack_codes.h"

#include <algorithm>

#include "cuda/byte_tile.cuh"
#include "cuda/gpu.h"
#include "cuda/pick.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 16;
constexpr std::uint32_t kZeroTrits = 0x55555555U;  // trit + 1 in every two bits

// Bytes 0, 1, 2 to -1, 0, 1: the bit above keeps the borrow of one byte out of the next.
BITNET_DEVICE std::uint32_t centered(std::uint32_t codes) {
  return ((codes | 0x80808080U) - 0x01010101U) ^ 0x80808080U;
}

// A thread unpacks 16 bytes of a packed row. x: parts of a row, y: packed rows.
__global__ void __launch_bounds__(kThreads)
    unpack_kernel(const std::uint8_t* packed, int quarter, int depth, std::int8_t* trits) {
  const int k = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kVector;
  if (k >= depth) return;
  const std::size_t at = static_cast<std::size_t>(blockIdx.x) * depth + k;
  const std::size_t quarter_elements = static_cast<std::size_t>(quarter) * depth;
  const uint4 bytes = gpu::load_vector<uint4>(packed + at);
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    const auto part = [&](std::uint32_t word) { return centered(word >> (2 * q) & 0x03030303U); };
    gpu::store_vector(trits + q * quarter_elements + at,
                      make_uint4(part(bytes.x), part(bytes.y), part(bytes.z), part(bytes.w)));
  }
}

// The four trits of byte i of a word.
BITNET_DEVICE std::uint32_t trits_of_byte(std::uint32_t word, int i) {
  const std::uint32_t byte = word >> (8 * i) & 0xffU;
  return centered((byte | byte << 6 | byte << 12 | byte << 18) & 0x03030303U);
}

using PackedTile = ByteTile<4>;

// Where a matrix gets to: packed rows with their padding, from element first_output of a row on.
struct Part {
  const std::uint8_t* packed;
  int quarter, first_output, lines;
};
struct Parts {
  Part part[kMostTransposed];
};

// One block for 32 packed rows (x) and 128 columns (y) of a matrix (z).
__global__ void __launch_bounds__(PackedTile::kThreads)
    unpack_transposed_kernel(Parts parts, int depth, std::int8_t* trits, int width) {
  BITNET_SHARED_ARRAY(std::uint8_t, tile, PackedTile::kBytes);
  const Part p = pick(parts.part, blockIdx.z);
  const int first_row = static_cast<int>(blockIdx.x) * PackedTile::kRows;
  if (first_row >= p.lines) return;  // of a smaller matrix than another
  const int first_column = static_cast<int>(blockIdx.y) * PackedTile::kColumns;
  PackedTile::load(tile, p.packed, first_row, first_column, p.quarter, depth, kZeroTrits);
  const int row = PackedTile::row(), k = first_column + PackedTile::column();
  if (first_row + row >= p.lines || k >= depth) return;
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = PackedTile::word(tile, row + i);
  std::int8_t* to =
      trits + static_cast<std::size_t>(k) * width + p.first_output + 4 * (first_row + row);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    gpu::store_vector(to + static_cast<std::size_t>(i) * width,
                      make_uint4(trits_of_byte(words[0], i), trits_of_byte(words[1], i),
                                 trits_of_byte(words[2], i), trits_of_byte(words[3], i)));
  }
}

bool supported(int quarter, int depth) {
  return quarter >= 1 && depth >= kVector && depth % kVector == 0;
}

}  // namespace

cudaError_t unpack_codes(const std::uint8_t* packed, int quarter, int depth, std::int8_t* trits,
                         cudaStream_t stream) {
  if (!supported(quarter, depth)) return cudaErrorInvalidValue;
  constexpr int kPart = kThreads * kVector;
  const dim3 grid(static_cast<unsigned>(quarter),
                  static_cast<unsigned>((depth + kPart - 1) / kPart));
  return gpu::launch(unpack_kernel, grid, dim3(kThreads), 0, stream, packed, quarter, depth, trits);
}

cudaError_t unpack_transposed(const TransposedCodes& op, cudaStream_t stream) {
  if (op.matrices < 1 || op.matrices > kMostTransposed) return cudaErrorInvalidValue;
  Parts parts{};
  int most = 0, width = 0;  // packed rows, of one matrix; elements of a row
  for (int i = 0; i < op.matrices; ++i) {
    if (!supported(op.quarter[i], op.depth)) return cudaErrorInvalidValue;
    const int outputs = padded_outputs(op.quarter[i]);
    parts.part[i] = {op.packed[i], op.quarter[i], width, outputs / 4};
    most = std::max(most, outputs / 4);
    width += outputs;
  }
  const dim3 grid(
      static_cast<unsigned>((most + PackedTile::kRows - 1) / PackedTile::kRows),
      static_cast<unsigned>((op.depth + PackedTile::kColumns - 1) / PackedTile::kColumns),
      static_cast<unsigned>(op.matrices));
  return gpu::launch(unpack_transposed_kernel, grid, dim3(PackedTile::kThreads), 0, stream, parts,
                     op.depth, op.trits, width);
}

}  // namespace bitnet::cuda
