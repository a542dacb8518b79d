// SPDX-License-Identifier: MIT
// A row stays in its threads' registers from its one reading to its one writing. Rows that do not
// fit, or are no whole number of quads, are read again for each pass, with the same results.
#include "cuda/norm_quantize.h"

#include "cuda/activations.cuh"
#include "cuda/gpu.h"
#include "cuda/row_threads.cuh"
#include "cuda/row_vectors.cuh"

namespace bitnet::cuda {
namespace {

template <int kQuads, typename T, typename Rows>
__global__ void __launch_bounds__(most_threads(kQuads), least_blocks(kQuads))
    norm_quantize_kernel(NormQuantize<Rows> op, bool aligned) {
  constexpr bool kHeld = kQuads > 0;
  const int row = row_of_thread();
  if (kHeld && op.norm.gain != nullptr && blockIdx.x == 0 && threadIdx.x + threadIdx.y == 0) {
    gpu::prefetch_to_l2(op.norm.gain, static_cast<std::size_t>(op.width) * sizeof(float));
  }
  gpu::wait_for_predecessors();
  if (row >= op.rows) return;
  const std::size_t start = static_cast<std::size_t>(row) * static_cast<std::size_t>(op.width);
  const float count = static_cast<float>(op.width);
  Quad z[kHeld ? kQuads : 1], gain[kHeld ? kQuads : 1];
  float mean = 0.0f, inv_std = 1.0f;
  const bool lone_row = kHeld && gridDim.x == 1;

  const auto each = [&](auto body) { for_each_quad<kQuads>(op.width, aligned, body); };
  const auto read_gain = [&](int q, int at, RowPart part) {
    if (op.norm.kind != RowNormKind::none) load_or_one(op.norm.gain, at, part, gain[q]);
  };
  const auto read = [&](int q, int at, RowPart part) {
    load_as<T>(op.input, start + at, part, z[q]);
  };
  const auto normalize = [&](int q, int at, RowPart part) {
    if constexpr (!kHeld) read(q, at, part);
    if (op.norm.kind == RowNormKind::none) return;
    if (!lone_row) read_gain(q, at, part);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) z[q][i] = (z[q][i] - mean) * inv_std * gain[q][i];
  };

  if constexpr (kHeld) each(read);
  if (lone_row) each(read_gain);  // at once with the row: there is nothing else to do meanwhile
  if (op.norm.kind == RowNormKind::layer) {
    float sum = 0.0f;
    each([&](int q, int at, RowPart part) {
      if constexpr (!kHeld) read(q, at, part);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) sum += part.has(i) ? z[q][i] : 0.0f;
    });
    mean = row_sum(sum, 0) / count;
  }
  if (op.norm.kind != RowNormKind::none) {
    float squares = 0.0f;
    each([&](int q, int at, RowPart part) {
      if constexpr (!kHeld) read(q, at, part);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        const float d = part.has(i) ? z[q][i] - mean : 0.0f;
        squares = fmaf(d, d, squares);
      }
    });
    inv_std = 1.0f / sqrtf(row_sum(squares, 1) / count + op.norm.eps);
    if (threadIdx.x == 0) op.stats[2 * row] = mean, op.stats[2 * row + 1] = inv_std;
  }

  if (op.y.data != nullptr) {
    each([&](int q, int at, RowPart part) {
      normalize(q, at, part);
      store_as<Either>(op.y, start + at, part, z[q]);
    });
  } else {
    unsigned absmax_bits = 0;
    each([&](int q, int at, RowPart part) {
      normalize(q, at, part);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        if (part.has(i)) absmax_bits = max(absmax_bits, magnitude_bits(z[q][i]));
      }
    });
    const RowScale scale = row_scale(row_max(absmax_bits, 0));
    each([&](int q, int at, RowPart part) {
      if constexpr (!kHeld) normalize(q, at, part);
      store_codes(op.codes + start + at, part, z[q], scale.inv_scale);
    });
    if (threadIdx.x == 0) op.act_scale[row] = scale.act_scale;
  }
}

__global__ void __launch_bounds__(kMostRowThreads) dequantize_kernel(Dequantize op, bool aligned) {
  const int row = row_of_thread();
  if (row >= op.rows) return;
  const std::size_t start = static_cast<std::size_t>(row) * static_cast<std::size_t>(op.width);
  const float scale = op.act_scale[row];
  for_each_quad<0>(op.width, aligned, [&](int, int at, RowPart part) {
    Quad x;
    load_codes(op.codes + start + at, part, x);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) x[i] *= scale;
    store(op.x + start + at, part, x);
  });
}

template <typename T, typename Rows>
auto kernel_for(int quads) {
  return quads == 2   ? norm_quantize_kernel<2, T, Rows>
         : quads == 4 ? norm_quantize_kernel<4, T, Rows>
                      : norm_quantize_kernel<0, Either, Rows>;
}

bool reads_bf16(const PlainRows& rows) { return rows.x.bf16; }
bool reads_bf16(const GatedRows& rows) { return rows.gate.bf16; }
bool fits(const PlainRows&) { return true; }
bool fits(const GatedRows& rows) { return one_type(rows.gate, rows.up); }

}  // namespace

template <typename Rows>
cudaError_t norm_quantize(const NormQuantize<Rows>& op, cudaStream_t stream) {
  if (op.rows < 1 || op.width < 1 || !fits(op.input)) return cudaErrorInvalidValue;
  const bool aligned = op.width % kQuad == 0 && rows_aligned(op.input) &&
                       quads_aligned(op.norm.gain, op.y, op.codes);
  const RowGrid grid = row_grid(op.rows, op.width, aligned);
  auto* const kernel = reads_bf16(op.input) ? kernel_for<__nv_bfloat16, Rows>(grid.quads)
                                            : kernel_for<float, Rows>(grid.quads);
  // Of many blocks those that wait would be unevenly spread when it is their turn (measured: a
  // seventh longer for 512 rows).
  constexpr unsigned kFewBlocks = 16;
  if (grid.blocks.x > kFewBlocks) {
    return gpu::launch(kernel, grid.blocks, grid.threads, 0, stream, op, aligned);
  }
  return gpu::launch_overlapping(kernel, grid.blocks, grid.threads, 0, stream, op, aligned);
}

template cudaError_t norm_quantize(const NormQuantize<PlainRows>&, cudaStream_t);
template cudaError_t norm_quantize(const NormQuantize<GatedRows>&, cudaStream_t);

cudaError_t dequantize(const Dequantize& op, cudaStream_t stream) {
  if (op.rows < 1 || op.width < 1) return cudaErrorInvalidValue;
  const bool aligned = op.width % kQuad == 0 && quads_aligned(op.codes, op.x);
  const RowGrid grid = row_grid(op.rows, op.width, aligned);
  return gpu::launch(dequantize_kernel, grid.blocks, grid.threads, 0, stream, op, aligned);
}

}  // namespace bitnet::cuda
