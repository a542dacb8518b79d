// SPDX-License-Identifier: MIT
#include "cuda/gradient_codes.h"

#include <algorithm>

#include "cuda/byte_tile.cuh"
#include "cuda/gpu.h"
#include "cuda/pick.cuh"
#include "cuda/quads.cuh"
#include "cuda/reduce.cuh"
#include "cuda/unpack_codes.h"

namespace bitnet::cuda {
namespace {

constexpr float kGradientEps = 0x1p-100f;  // keeps 127 / absmax finite
constexpr float kGradientMax = 127.0f;
constexpr unsigned kMagnitudeMask = 0x7fffffffU;

BITNET_DEVICE unsigned magnitude(float x) { return __float_as_uint(x) & kMagnitudeMask; }

struct Rounding {
  float scale, inv_scale;

  // absmax_bits order as magnitudes do, infinity and NaN on top.
  BITNET_DEVICE explicit Rounding(unsigned absmax_bits) {
    const float absmax = __uint_as_float(max(absmax_bits, __float_as_uint(kGradientEps)));
    scale = absmax / kGradientMax;
    inv_scale = kGradientMax / absmax;  // 0 for infinity, NaN for NaN
  }
  // |x * inv_scale| < 127.5, or NaN, which becomes 0: infinity times 0, and all by a NaN.
  BITNET_DEVICE unsigned code(float x) const {
    return static_cast<unsigned>(__float2int_rn(x * inv_scale)) & 0xffU;
  }
  BITNET_DEVICE unsigned codes(float a, float b, float c, float d) const {
    return code(a) | code(b) << 8 | code(c) << 16 | code(d) << 24;
  }
};

constexpr int kRowThreads = 128;

// What a kernel must know of a gradient. Few bytes: a block begins with reading them.
struct RowPart {
  const void* dy;
  const float* weight_scale;
  int columns, index;  // index: of the scale in a row
  int first, padded;   // of the codes in a row
};
struct RowParts {
  RowPart part[kMostGradients];
};

// One block per row (x) of a gradient (y); a thread takes the elements of a packed byte, one of each
// quarter of the row. The second reading is from the cache.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    rows_kernel(RowParts parts, std::int8_t* codes, int width, float* scale, int scales) {
  const RowPart part = pick(parts.part, blockIdx.y);
  const int quarter = part.columns / 4;
  const T* row =
      static_cast<const T*>(part.dy) + static_cast<std::size_t>(blockIdx.x) * part.columns;
  const auto at = [&](int q, int r) { return detail::widened(row[q * quarter + r]); };
  unsigned absmax = 0;
  for (int r = static_cast<int>(threadIdx.x); r < quarter; r += kRowThreads) {
#pragma unroll
    for (int q = 0; q < 4; ++q) absmax = max(absmax, magnitude(at(q, r)));
  }
  const Rounding rounding(block_max<kRowThreads>(absmax));
  std::int8_t* to = codes + static_cast<std::size_t>(blockIdx.x) * width + part.first;
  for (int r = static_cast<int>(threadIdx.x); r < part.padded / 4; r += kRowThreads) {
    std::uint32_t word = 0;
    if (r < quarter) {
      word = rounding.codes(at(0, r), at(1, r), at(2, r), at(3, r));
    }
    gpu::store_vector(to + 4 * r, word);
  }
  if (threadIdx.x == 0) {
    scale[static_cast<std::size_t>(blockIdx.x) * scales + part.index] =
        rounding.scale * *part.weight_scale;
  }
}

constexpr int kColumns = 32;  // of a block: lane l has column l
constexpr int kWarps = 16, kColumnThreads = kWarps * gpu::kWarpSize;
constexpr int kTokens = kGradientStretch / kWarps;  // of a thread, which are successive
constexpr int kChunk = 16, kColumnChunks = kGradientStretch / kChunk;
constexpr int kPitch = kGradientStretch + kChunk;  // spreads the columns over the banks

struct ColumnPart {
  const void* dy;
  int columns, first;  // first: of the lines of codes and of scales
};
struct ColumnParts {
  ColumnPart part[kMostGradients];
};

// One block for a stretch of tokens (x) and 32 columns (y) of a gradient (z), in registers; the codes
// of a column leave through shared memory, so that they are written as a piece.
template <typename T>
__global__ void __launch_bounds__(kColumnThreads)
    columns_kernel(ColumnParts parts, const float* act_scale, int rows, std::int8_t* all_codes,
                   int padded, float* all_scales) {
  BITNET_SHARED_ARRAY(unsigned, warp_absmax, kWarps* kColumns);
  BITNET_SHARED_ARRAY(std::int8_t, staged, kColumns * kPitch);
  const ColumnPart part = pick(parts.part, blockIdx.z);
  const T* const dy = static_cast<const T*>(part.dy);
  const int columns = part.columns;
  const int warp = static_cast<int>(threadIdx.x) / gpu::kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % gpu::kWarpSize;
  const int stretch = static_cast<int>(blockIdx.x), first = stretch * kGradientStretch;
  const int first_column = static_cast<int>(blockIdx.y) * kColumns, column = first_column + lane;
  if (first_column >= columns) return;  // of a smaller gradient than another
  std::int8_t* const codes = all_codes + static_cast<std::size_t>(part.first) * padded;
  float* const scale = all_scales + static_cast<std::size_t>(part.first) * gridDim.x;
  float values[kTokens];
  unsigned absmax = 0;
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    const int token = first + warp * kTokens + i;
    values[i] = 0.0f;
    if (token < rows && column < columns) {
      const T v = dy[static_cast<std::size_t>(token) * columns + column];
      values[i] = detail::widened(v) * act_scale[token];
    }
    absmax = max(absmax, magnitude(values[i]));
  }
  warp_absmax[warp * kColumns + lane] = absmax;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kWarps; ++w) absmax = max(absmax, warp_absmax[w * kColumns + lane]);
  const Rounding rounding(absmax);
  if (warp == 0 && column < columns) {
    scale[static_cast<std::size_t>(column) * gridDim.x + stretch] = rounding.scale;
  }
#pragma unroll
  for (int i = 0; i < kTokens; i += kChunk) {
    const auto four = [&](int at) {
      return rounding.codes(values[at], values[at + 1], values[at + 2], values[at + 3]);
    };
    gpu::store_vector(staged + lane * kPitch + warp * kTokens + i,
                      make_uint4(four(i), four(i + 4), four(i + 8), four(i + 12)));
  }
  __syncthreads();
#pragma unroll
  for (int piece = static_cast<int>(threadIdx.x); piece < kColumns * kColumnChunks;
       piece += kColumnThreads) {
    const int c = piece / kColumnChunks, token = piece % kColumnChunks * kChunk;
    if (first_column + c >= columns || first + token >= padded) continue;
    gpu::store_vector(codes + static_cast<std::size_t>(first_column + c) * padded + first + token,
                      gpu::load_vector<uint4>(staged + c * kPitch + token));
  }
}

// Rows of 4 bytes to columns.
BITNET_DEVICE void transpose4(const std::uint32_t (&rows)[4], std::uint32_t (&columns)[4]) {
  const std::uint32_t low01 = __byte_perm(rows[0], rows[1], 0x5140);
  const std::uint32_t low23 = __byte_perm(rows[2], rows[3], 0x5140);
  const std::uint32_t high01 = __byte_perm(rows[0], rows[1], 0x7362);
  const std::uint32_t high23 = __byte_perm(rows[2], rows[3], 0x7362);
  columns[0] = __byte_perm(low01, low23, 0x5410);
  columns[1] = __byte_perm(low01, low23, 0x7632);
  columns[2] = __byte_perm(high01, high23, 0x5410);
  columns[3] = __byte_perm(high01, high23, 0x7632);
}

// One block for 128 tokens (x) and 128 columns (y).
using CodeTile = ByteTile<16>;
__global__ void __launch_bounds__(CodeTile::kThreads)
    transpose_kernel(const std::int8_t* codes, int rows, int depth, std::int8_t* transposed,
                     int padded) {
  BITNET_SHARED_ARRAY(std::uint8_t, tile, CodeTile::kBytes);
  const int first_row = static_cast<int>(blockIdx.x) * CodeTile::kRows;
  const int first_column = static_cast<int>(blockIdx.y) * CodeTile::kColumns;
  CodeTile::load(tile, codes, first_row, first_column, rows, depth, 0);
  const int row = CodeTile::row(), k = first_column + CodeTile::column();
  if (first_row + row >= padded || k >= depth) return;
  std::uint32_t columns[4][4];  // of four blocks of 4 tokens
#pragma unroll
  for (int block = 0; block < 4; ++block) {
    std::uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = CodeTile::word(tile, row + block * 4 + i);
    transpose4(words, columns[block]);
  }
  std::int8_t* to = transposed + static_cast<std::size_t>(k) * padded + first_row + row;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    gpu::store_vector(to + static_cast<std::size_t>(i) * padded,
                      make_uint4(columns[0][i], columns[1][i], columns[2][i], columns[3][i]));
  }
}

unsigned blocks(int count, int of_block) {
  return static_cast<unsigned>((count + of_block - 1) / of_block);
}

bool supported(const Gradients& g, int step) {
  if (g.count < 1 || g.count > kMostGradients || g.rows < 1) return false;
  for (int i = 0; i < g.count; ++i) {
    const int columns = g.gradient[i].columns;
    if (columns < 1 || columns % step != 0) return false;
  }
  return true;
}

template <typename T>
constexpr bool kIsBf16 = std::is_same_v<T, __nv_bfloat16>;

// Those of one type; the others have a launch of their own.
template <typename T>
cudaError_t launch_rows(const GradientRows& op, cudaStream_t stream) {
  const Gradients& g = op.gradients;
  RowParts parts{};
  unsigned count = 0;
  int width = 0;
  for (int i = 0; i < g.count; ++i) {
    const int columns = g.gradient[i].columns, padded = padded_outputs(columns / 4);
    if (g.gradient[i].dy.bf16 == kIsBf16<T>) {
      parts.part[count++] = {g.gradient[i].dy.data, op.weight_scale[i], columns, i, width, padded};
    }
    width += padded;
  }
  if (count == 0) return cudaSuccess;
  return gpu::launch(rows_kernel<T>, dim3(static_cast<unsigned>(g.rows), count), dim3(kRowThreads),
                     0, stream, parts, op.codes, width, op.scale, g.count);
}

template <typename T>
cudaError_t launch_columns(const GradientColumns& op, cudaStream_t stream) {
  const Gradients& g = op.gradients;
  ColumnParts parts{};
  unsigned count = 0;
  int first = 0, most = 0;
  for (int i = 0; i < g.count; ++i) {
    const int columns = g.gradient[i].columns;
    if (g.gradient[i].dy.bf16 == kIsBf16<T>) {
      parts.part[count++] = {g.gradient[i].dy.data, columns, first};
      most = std::max(most, columns);
    }
    first += columns;
  }
  if (count == 0) return cudaSuccess;
  const dim3 grid(blocks(g.rows, kGradientStretch), blocks(most, kColumns), count);
  return gpu::launch(columns_kernel<T>, grid, dim3(kColumnThreads), 0, stream, parts, op.act_scale,
                     g.rows, op.codes, padded_tokens(g.rows), op.scale);
}

}  // namespace

cudaError_t quantize_gradient_rows(const GradientRows& op, cudaStream_t stream) {
  if (!supported(op.gradients, 4)) return cudaErrorInvalidValue;
  const cudaError_t error = launch_rows<__nv_bfloat16>(op, stream);
  return error != cudaSuccess ? error : launch_rows<float>(op, stream);
}

cudaError_t quantize_gradient_columns(const GradientColumns& op, cudaStream_t stream) {
  if (!supported(op.gradients, 1)) return cudaErrorInvalidValue;
  const cudaError_t error = launch_columns<__nv_bfloat16>(op, stream);
  return error != cudaSuccess ? error : launch_columns<float>(op, stream);
}

cudaError_t transpose_codes(const std::int8_t* codes, int rows, int depth, std::int8_t* transposed,
                            cudaStream_t stream) {
  if (rows < 1 || depth < 16 || depth % 16 != 0) return cudaErrorInvalidValue;
  const dim3 grid(blocks(rows, CodeTile::kRows), blocks(depth, CodeTile::kColumns));
  return gpu::launch(transpose_kernel, grid, dim3(CodeTile::kThreads), 0, stream, codes, rows,
                     depth, transposed, padded_tokens(rows));
}

}  // namespace bitnet::cuda
