// SPDX-License-Identifier: MIT
// How the tiles of gemm_tiles.cuh are launched and their sums leave: a thread has the same columns,
// in quads, of a few rows. What is added to a row is loaded before any of it is stored, so that the
// loads are under way together.
#pragma once

#include "cuda/gemm_tiles.cuh"
#include "cuda/quads.cuh"

namespace bitnet::cuda {

template <typename Tile>
struct ThreadRows {
  static constexpr int kCount = 2 * Tile::kRowFragments;
  WarpPlace<Tile> warp;
  int first, rows;  // of the tile, of the matrix

  BITNET_DEVICE ThreadRows(int first_row, int row_count) : first(first_row), rows(row_count) {}
  BITNET_DEVICE int at(int index) const { return first + row_in_tile(warp, index); }
  BITNET_DEVICE bool inside(int index) const { return at(index) < rows; }
  // x[row * pitch] for each, 0 outside the matrix.
  BITNET_DEVICE void load(const float* x, int pitch, float (&values)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int row = at(i);
      values[i] = row < rows ? x[static_cast<std::size_t>(row) * pitch] : 0.0f;
    }
  }
};

// Where the thread's quads of columns are in a row.
struct QuadPlace {
  int column, left;  // left: columns from there on, of the matrix or of the quarter
};
template <typename Tile>
class ThreadColumns {
 public:
  WarpPlace<Tile> warp;
  int first_line, lines, columns;  // of b: of the tile, of the matrix; columns of y
  bool aligned;                    // quads lie as four elements in memory, if they are whole

  BITNET_DEVICE ThreadColumns(int first, int line_count, int column_count, bool aligned_quads)
      : first_line(first), lines(line_count), columns(column_count), aligned(aligned_quads) {}
  BITNET_DEVICE QuadPlace at(int q) const {
    const int line = first_line + line_in_tile(warp, q);
    return {Tile::kPacked ? q % 4 * lines + line : line, lines - line};
  }
  BITNET_DEVICE std::size_t row_start(int row) const {
    return static_cast<std::size_t>(row) * columns;
  }
  // Zeros outside the matrix, and without x.
  BITNET_DEVICE void load(const float* x, int row, float4 (&values)[Tile::kQuads]) const {
    load_quads(values, [&](const QuadPlace& from) {
      if (x == nullptr) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      return load_quad(x + row_start(row) + from.column, from.left, aligned);
    });
  }
  BITNET_DEVICE void load(const Reals& x, int row, float4 (&values)[Tile::kQuads]) const {
    load_quads(values, [&](const QuadPlace& from) {
      return load_quad(x, row_start(row) + from.column, from.left, aligned);
    });
  }
  BITNET_DEVICE void store(const Reals& y, int row, int q, float4 value) const {
    const QuadPlace to = at(q);
    if (to.left > 0) store_quad(y, row_start(row) + to.column, to.left, aligned, value);
  }

 private:
  template <typename Load>
  BITNET_DEVICE void load_quads(float4 (&values)[Tile::kQuads], Load load) const {
#pragma unroll
    for (int q = 0; q < Tile::kQuads; ++q) {
      const QuadPlace from = at(q);
      values[q] = from.left > 0 ? load(from) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
  }
};

// Host code: whether the quads of rows of `columns` elements are aligned.
inline bool quad_rows(const Reals& y, int columns) {
  return columns % kQuad == 0 && y.aligned(kQuad * y.element_bytes());
}

inline constexpr unsigned kMostGridRows = 65535;
constexpr unsigned tiles_of(int count, int size) {
  return static_cast<unsigned>((count + size - 1) / size);
}

// A block of Tile for each of `across` x rows / Tile::kRows tiles.
template <typename Tile, typename Kernel, typename... Arguments>
cudaError_t launch_tiles(Kernel kernel, unsigned across, int rows, cudaStream_t stream,
                         const Arguments&... arguments) {
  const dim3 grid(across, tiles_of(rows, Tile::kRows));
  if (grid.y > kMostGridRows) return cudaErrorInvalidValue;
  const cudaError_t error = gpu::allow_shared_bytes(kernel, Tile::kSharedBytes);
  if (error != cudaSuccess) return error;
  return gpu::launch(kernel, grid, dim3(Tile::kThreads), Tile::kSharedBytes, stream, arguments...);
}

}  // namespace bitnet::cuda
