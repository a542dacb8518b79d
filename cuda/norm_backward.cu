// SPDX-License-Identifier: MIT
// A warp or block takes a stretch of rows one after another. It holds in registers the row it works
// on and its part of dgain; wider rows are read twice, and their part of dgain stays in memory. Then
// the parts are added up, column by column.
#include "cuda/norm_backward.h"

#include "cuda/activations.cuh"
#include "cuda/gpu.h"
#include "cuda/row_threads.cuh"
#include "cuda/row_vectors.cuh"

namespace bitnet::cuda {
namespace {

constexpr int kMostParts = 512;  // enough blocks for any device, and little memory beside the rows
constexpr int kLeastRowsOfPart = 4;
constexpr int kMostHolders = 512;  // threads; of more there are not enough registers

int rows_of_part(int rows) { return max(kLeastRowsOfPart, (rows + kMostParts - 1) / kMostParts); }

// What is held of a quad of the input, whose elements are T: enough for h and for the way back
// through it.
template <typename Rows, typename T>
struct Held;

template <typename T>
struct Held<PlainRows, T> {
  Quad x;
  BITNET_DEVICE void read(const PlainRows& rows, std::size_t at, RowPart part) {
    load_as<T>(rows, at, part, x);
  }
  BITNET_DEVICE void value(const PlainRows&, Quad& h) const {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) h[i] = x[i];
  }
  BITNET_DEVICE void write(const NormBackward<PlainRows>& op, std::size_t at, RowPart part,
                           Quad& dh) const {
    if (op.accumulate) {
      Quad dx;
      load(static_cast<const float*>(op.dx.data) + at, part, dx);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) dh[i] = dx[i] + dh[i];
    }
    store_as<Either>(op.dx, at, part, dh);
  }
};

template <typename T>
struct Held<GatedRows, T> {
  Quad gate, up;
  BITNET_DEVICE void read(const GatedRows& rows, std::size_t at, RowPart part) {
    load_gated<T>(rows, at, part, gate, up);
  }
  BITNET_DEVICE void value(const GatedRows& rows, Quad& h) const {
    gated(rows.activation, gate, up, h);
  }
  BITNET_DEVICE void write(const NormBackward<GatedRows>& op, std::size_t at, RowPart part,
                           const Quad& dh) const {
    Quad dgate, dup;
    gated_backward(op.input.activation, gate, up, dh, dgate, dup);
    store_as<T>(op.dx, at, part, dgate);
    if (op.dup.data != nullptr) store_as<T>(op.dup, at, part, dup);
  }
};

// Bounds the registers. 512 threads make the compiler aim at 64, which are a few too few for two
// quads of gated rows; 768 leave it 80.
template <int kQuads, typename Rows>
constexpr int kThreadBound = kQuads == 0                                      ? kMostRowThreads
                             : kQuads == 2 && std::is_same_v<Rows, GatedRows> ? 768
                                                                              : kMostHolders;

template <int kQuads, typename Input, typename Gradient, typename Rows>
__global__ void __launch_bounds__((kThreadBound<kQuads, Rows>), least_blocks(kQuads))
    norm_backward_kernel(NormBackward<Rows> op, int stretch, bool aligned) {
  constexpr bool kHeld = kQuads > 0;
  constexpr int kHeldQuads = kHeld ? kQuads : 1;
  const std::size_t width = static_cast<std::size_t>(op.width);
  const float count = static_cast<float>(op.width);
  const int part_of_gain = row_of_thread(), first = part_of_gain * stretch,
            end = min(first + stretch, op.rows);
  float* const gain_part = op.dgain == nullptr ? nullptr : op.parts + part_of_gain * width;
  Held<Rows, Input> input[kHeldQuads];
  Quad dy[kHeldQuads], dgain[kHeldQuads];
#pragma unroll
  for (int q = 0; q < kHeldQuads; ++q) {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) dgain[q][i] = 0.0f;
  }
  const auto each = [&](auto body) { for_each_quad<kQuads>(op.width, aligned, body); };

  for (int row = first; row < end; ++row) {
    const std::size_t start = static_cast<std::size_t>(row) * width;
    const float mean = op.stats[2 * row], inv_std = op.stats[2 * row + 1];
    const auto read = [&](int q, int at, RowPart part) {
      input[q].read(op.input, start + at, part);
      load_as<Gradient>(op.dy, start + at, part, dy[q]);
    };
    // h_hat and g, which is 0 beyond the row.
    const auto evaluate = [&](int q, int at, RowPart part, Quad& h_hat, Quad& g) {
      Quad gain;
      load_or_one(op.norm.gain, at, part, gain);
      input[q].value(op.input, h_hat);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        h_hat[i] = (h_hat[i] - mean) * inv_std;
        g[i] = dy[q][i] * gain[i];
      }
    };

    if constexpr (kHeld) each(read);
    float2 sums = make_float2(0.0f, 0.0f);  // of g and of g * h_hat
    each([&](int q, int at, RowPart part) {
      if constexpr (!kHeld) {
        read(q, at, part);
        if (gain_part != nullptr && row > first) load(gain_part + at, part, dgain[q]);
      }
      Quad h_hat, g;
      evaluate(q, at, part, h_hat, g);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        sums.x += g[i];
        sums.y = fmaf(g[i], h_hat[i], sums.y);
        dgain[q][i] = fmaf(dy[q][i], h_hat[i], kHeld || row > first ? dgain[q][i] : 0.0f);
      }
      if constexpr (!kHeld) {
        if (gain_part != nullptr) store(gain_part + at, part, dgain[q]);
      }
    });
    sums = row_sums(sums, row % 2);
    const float mean_g = op.norm.kind == RowNormKind::layer ? sums.x / count : 0.0f;
    const float mean_product = sums.y / count;
    each([&](int q, int at, RowPart part) {
      if constexpr (!kHeld) read(q, at, part);
      Quad h_hat, dh;
      evaluate(q, at, part, h_hat, dh);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        dh[i] = inv_std * (dh[i] - h_hat[i] * mean_product - mean_g);
      }
      input[q].write(op, start + at, part, dh);
    });
  }
  if constexpr (kHeld) {
    if (gain_part != nullptr && first < end) {
      each([&](int q, int at, RowPart part) { store(gain_part + at, part, dgain[q]); });
    }
  }
}

constexpr int kColumns = 32, kMostSlices = 16,
              kMostSumThreads = kColumns * kMostSlices;  // of a block

// Thread (c, s) adds up parts s, s + slices, … of its column; the slices follow in order.
__global__ void __launch_bounds__(kMostSumThreads)
    sum_parts_kernel(const float* parts, int count, int width, float* dgain) {
  BITNET_SHARED_ARRAY(float, of_slice, kMostSumThreads);
  const int column = static_cast<int>(blockIdx.x) * kColumns + static_cast<int>(threadIdx.x);
  const int slices = static_cast<int>(blockDim.y);
  float sum = 0.0f;
  if (column < width) {
#pragma unroll 4
    for (int part = static_cast<int>(threadIdx.y); part < count; part += slices) {
      sum += parts[static_cast<std::size_t>(part) * static_cast<std::size_t>(width) + column];
    }
  }
  of_slice[threadIdx.y * kColumns + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < width) {
    for (int slice = 1; slice < slices; ++slice) sum += of_slice[slice * kColumns + threadIdx.x];
    dgain[column] += sum;
  }
}

template <typename Rows>
using Kernel = void (*)(NormBackward<Rows>, int stretch, bool aligned);

template <typename Input, typename Gradient, typename Rows>
Kernel<Rows> kernel_for(int quads) {
  return quads == 2   ? norm_backward_kernel<2, Input, Gradient, Rows>
         : quads == 4 ? norm_backward_kernel<4, Input, Gradient, Rows>
                      : norm_backward_kernel<0, Either, Either, Rows>;
}

// No model has a bf16 input and an f32 gradient: no kernel of its own.
Kernel<PlainRows> kernel_of(const NormBackward<PlainRows>& op, int quads) {
  if (!op.dy.bf16) return kernel_for<float, float, PlainRows>(op.input.x.bf16 ? 0 : quads);
  return op.input.x.bf16 ? kernel_for<__nv_bfloat16, __nv_bfloat16, PlainRows>(quads)
                         : kernel_for<float, __nv_bfloat16, PlainRows>(quads);
}
Kernel<GatedRows> kernel_of(const NormBackward<GatedRows>& op, int quads) {
  return op.dy.bf16 ? kernel_for<__nv_bfloat16, __nv_bfloat16, GatedRows>(quads)
                    : kernel_for<float, float, GatedRows>(quads);
}

bool fits(const NormBackward<PlainRows>& op) { return !(op.accumulate && op.dx.bf16); }
bool fits(const NormBackward<GatedRows>& op) {
  return one_type(op.input.gate, op.input.up, op.dy, op.dx, op.dup);
}

}  // namespace

int gain_parts(int rows) { return (rows + rows_of_part(rows) - 1) / rows_of_part(rows); }

template <typename Rows>
cudaError_t norm_backward(const NormBackward<Rows>& op, cudaStream_t stream) {
  if (op.rows < 1 || op.width < 1 || op.norm.kind == RowNormKind::none || !fits(op)) {
    return cudaErrorInvalidValue;
  }
  const bool aligned = op.width % kQuad == 0 && rows_aligned(op.input) &&
                       quads_aligned(op.norm.gain, op.dy, op.dx, op.dup, op.parts);
  const int stretch = op.dgain == nullptr ? 1 : rows_of_part(op.rows);
  const int stretches = op.dgain == nullptr ? op.rows : gain_parts(op.rows);
  const RowGrid grid = row_grid(stretches, op.width, aligned, kMostHolders);
  const cudaError_t error = gpu::launch(kernel_of(op, grid.quads), grid.blocks, grid.threads, 0,
                                        stream, op, stretch, aligned);
  if (error != cudaSuccess || op.dgain == nullptr) return error;
  return gpu::launch(sum_parts_kernel,
                     dim3(static_cast<unsigned>((op.width + kColumns - 1) / kColumns)),
                     dim3(kColumns, static_cast<unsigned>(min(stretches, kMostSlices))), 0, stream,
                     op.parts, stretches, op.width, op.dgain);
}

template cudaError_t norm_backward(const NormBackward<PlainRows>&, cudaStream_t);
template cudaError_t norm_backward(const NormBackward<GatedRows>&, cudaStream_t);

}  // namespace bitnet::cuda
