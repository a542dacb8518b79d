// SPDX-License-Identifier: MIT
// A transposition goes through shared memory in tiles of 64 x 64: in as rows of four elements a
// thread, out as lines of eight (16 bytes).
#include "cuda/to_bf16.h"

#include "cuda/gpu.h"
#include "cuda/quads.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 8;         // elements that a thread writes at once
constexpr int kTile = 64;          // rows and columns
constexpr int kPairs = kTile / 2;  // of rows: the words of a tile's column
constexpr unsigned kMostGridRows = 65535;
constexpr std::int64_t kMostVectors = std::int64_t{1} << 32;

BITNET_DEVICE int padded(int elements) { return (elements + kVector - 1) / kVector * kVector; }

// Zeros outside the matrix. `aligned`: every row is, for four elements at a time.
template <typename T>
BITNET_DEVICE float4 quad_at(const T* x, int row, int column, int rows, int columns, bool aligned) {
  if (row >= rows) return make_float4(0, 0, 0, 0);
  return load_quad(x + static_cast<std::size_t>(row) * columns + column, columns - column, aligned);
}
BITNET_DEVICE float4 multiply(float scale, float4 x) {
  return make_float4(scale * x.x, scale * x.y, scale * x.z, scale * x.w);
}
BITNET_DEVICE uint2 pack_quad(float4 x) {
  return make_uint2(gpu::pack_bf16x2(x.x, x.y), gpu::pack_bf16x2(x.z, x.w));
}

// One thread per vector of the result. x is op.x.
template <typename T>
__global__ void __launch_bounds__(kThreads) plain_kernel(RealsToBf16 op, const T* x, bool aligned) {
  const unsigned vectors = static_cast<unsigned>(padded(op.columns) / kVector);
  const unsigned index = blockIdx.x * kThreads + threadIdx.x;
  const int row = static_cast<int>(index / vectors);
  const int column = static_cast<int>(index % vectors) * kVector;
  if (row >= op.rows) return;
  const float scale = op.scale != nullptr ? *op.scale : 1.0f;
  const uint2 low =
      pack_quad(multiply(scale, quad_at(x, row, column, op.rows, op.columns, aligned)));
  const uint2 high =
      pack_quad(multiply(scale, quad_at(x, row, column + kQuad, op.rows, op.columns, aligned)));
  gpu::store_vector(op.plain.lines + row * op.plain.pitch + column,
                    make_uint4(low.x, low.y, high.x, high.y));
}

// --- what is transposed: take() is called once for each quad of the matrix and its padding ---

template <typename T>
struct RealSource {
  RealsToBf16 op;
  const T* x;  // op.x
  bool aligned;
  // Writes the plain copy on the way.
  BITNET_DEVICE float4 take(int row, int column) const {
    const float4 quad = quad_at(x, row, column, op.rows, op.columns, aligned);
    if (op.plain.lines != nullptr && row < op.rows && column < padded(op.columns)) {
      const float scale = op.scale != nullptr ? *op.scale : 1.0f;
      gpu::store_vector(op.plain.lines + row * op.plain.pitch + column,
                        pack_quad(multiply(scale, quad)));
    }
    return op.row_scale != nullptr && row < op.rows ? multiply(op.row_scale[row], quad) : quad;
  }
};

struct CodeSource {
  CodesToBf16 op;
  BITNET_DEVICE float4 take(int row, int column) const {
    if (row >= op.rows || column >= op.columns) return make_float4(0, 0, 0, 0);
    const auto four = gpu::load_vector<std::uint32_t>(
        op.codes + static_cast<std::size_t>(row) * op.columns + column);
    const auto code = [&](int i) {
      return static_cast<float>(static_cast<std::int8_t>(four >> (8 * i) & 0xffU));
    };
    return make_float4(code(0), code(1), code(2), code(3));
  }
};

struct TernarySource {
  TernaryToBf16 op;
  BITNET_DEVICE float4 take(int row, int column) const {
    if (row >= op.rows || column >= op.columns) return make_float4(0, 0, 0, 0);
    const int packed_rows = op.rows / 4;
    const int quarter = row / packed_rows, packed_row = row % packed_rows;
    const auto four = gpu::load_vector<std::uint32_t>(
        op.packed + static_cast<std::size_t>(packed_row) * op.columns + column);
    const unsigned trits = four >> (2 * quarter);
    const auto trit = [&](int i) {
      return static_cast<float>(static_cast<int>(trits >> (8 * i) & 3U) - 1);
    };
    const float4 x = make_float4(trit(0), trit(1), trit(2), trit(3));
    if (op.scale == nullptr) return x;
    const int groups = op.columns / op.group_size;
    return multiply(op.scale[static_cast<std::size_t>(row) * groups + column / op.group_size], x);
  }
};

// The word of the tile that holds rows 2 pair and 2 pair + 1 of a column. Exchanging 16-byte parts
// of a column's 32 banks lets a warp write eight pairs of 4 x 4 columns without a conflict.
BITNET_DEVICE int tile_word(int column, int pair) {
  return column * kPairs + ((pair / 4) ^ (column / 4 * 2 % 8)) * 4 + pair % 4;
}

// One block per tile; x: columns, y: rows.
template <typename Source>
__global__ void __launch_bounds__(kThreads) transpose_kernel(Source source) {
  BITNET_SHARED_ARRAY(std::uint32_t, tile, kTile * kPairs);
  const int first_row = static_cast<int>(blockIdx.y) * kTile;
  const int first_column = static_cast<int>(blockIdx.x) * kTile;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % gpu::kWarpSize, warp = thread / gpu::kWarpSize;
#pragma unroll
  for (int part = warp; part < 16; part += kThreads / gpu::kWarpSize) {  // 16 rows x 16 columns
    const int column = part % 4 * 16 + lane % 4 * kQuad, pair = part / 4 * 8 + lane / 4;
    const int row = first_row + 2 * pair;
    const float4 even = source.take(row, first_column + column);
    const float4 odd = source.take(row + 1, first_column + column);
    tile[tile_word(column, pair)] = gpu::pack_bf16x2(even.x, odd.x);
    tile[tile_word(column + 1, pair)] = gpu::pack_bf16x2(even.y, odd.y);
    tile[tile_word(column + 2, pair)] = gpu::pack_bf16x2(even.z, odd.z);
    tile[tile_word(column + 3, pair)] = gpu::pack_bf16x2(even.w, odd.w);
  }
  __syncthreads();
  constexpr int kVectors = kTile / kVector;  // of a line
  const Bf16Lines& to = source.op.transposed;
#pragma unroll
  for (int part = thread; part < kTile * kVectors; part += kThreads) {
    const int column = part / kVectors, vector = part % kVectors;
    const int row = first_row + vector * kVector;
    if (first_column + column >= source.op.columns || row >= padded(source.op.rows)) continue;
    gpu::store_vector(to.lines + (first_column + column) * to.pitch + row,
                      gpu::load_vector<uint4>(tile + tile_word(column, vector * kQuad)));
  }
}

template <typename Source>
cudaError_t transpose(const Source& source, cudaStream_t stream) {
  const auto tiles = [](int n) { return static_cast<unsigned>((n + kTile - 1) / kTile); };
  const dim3 grid(tiles(source.op.columns), tiles(source.op.rows));
  if (grid.y > kMostGridRows) return cudaErrorInvalidValue;
  return gpu::launch(transpose_kernel<Source>, grid, dim3(kThreads), 0, stream, source);
}

template <typename T>
cudaError_t launch_reals(const RealsToBf16& op, std::int64_t vectors, cudaStream_t stream) {
  const T* const x = op.x.as<T>();
  const bool aligned = op.columns % kQuad == 0 && quads_aligned(x);
  if (op.transposed.lines != nullptr) return transpose(RealSource<T>{op, x, aligned}, stream);
  const auto blocks = static_cast<unsigned>((vectors + kThreads - 1) / kThreads);
  return gpu::launch(plain_kernel<T>, dim3(blocks), dim3(kThreads), 0, stream, op, x, aligned);
}

bool holds(const Bf16Lines& to, std::int64_t elements) {
  return to.pitch % kBf16Padding == 0 && to.pitch >= elements;
}

}  // namespace

cudaError_t to_bf16(const RealsToBf16& op, cudaStream_t stream) {
  if (op.rows < 1 || op.columns < 1 ||
      (op.plain.lines == nullptr && op.transposed.lines == nullptr)) {
    return cudaErrorInvalidValue;
  }
  const std::int64_t vectors = bf16_padded(op.columns) / kVector * op.rows;
  if ((op.plain.lines != nullptr && !holds(op.plain, op.columns)) ||
      (op.transposed.lines != nullptr && !holds(op.transposed, op.rows)) ||
      vectors >= kMostVectors - kThreads) {
    return cudaErrorInvalidValue;
  }
  return op.x.bf16 ? launch_reals<__nv_bfloat16>(op, vectors, stream)
                   : launch_reals<float>(op, vectors, stream);
}

cudaError_t to_bf16(const CodesToBf16& op, cudaStream_t stream) {
  if (op.rows < 1 || op.columns < kQuad || op.columns % kQuad != 0 ||
      !holds(op.transposed, op.rows)) {
    return cudaErrorInvalidValue;
  }
  return transpose(CodeSource{op}, stream);
}

cudaError_t to_bf16(const TernaryToBf16& op, cudaStream_t stream) {
  const bool groups =
      op.scale == nullptr ||
      (op.group_size >= kQuad && op.group_size % kQuad == 0 && op.columns % op.group_size == 0);
  if (op.rows < 4 || op.rows % 4 != 0 || op.columns < kQuad || op.columns % kQuad != 0 || !groups ||
      !holds(op.transposed, op.rows)) {
    return cudaErrorInvalidValue;
  }
  return transpose(TernarySource{op}, stream);
}

}  // namespace bitnet::cuda
