// SPDX-License-Identifier: MIT
// A warp or block takes a stretch of rows one after another. It holds in registers the row it works
// on, the next one, which is on its way meanwhile, and its part of dgain; wider rows are read twice,
// and their part of dgain stays in memory. Then the parts are added up, column by column.
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

// A quad as it lies in memory: of a row that is still on its way, and few registers.
template <typename T>
struct StoredQuad {
  std::conditional_t<std::is_same_v<T, float>, float4, uint2> stored;
  BITNET_DEVICE void read(const ConstReals& from, std::size_t at, RowPart) {
    stored = gpu::load_vector<decltype(stored)>(static_cast<const T*>(from.data) + at);
  }
  BITNET_DEVICE void value(Quad& x) const {
    if constexpr (std::is_same_v<T, float>) {
      x[0] = stored.x, x[1] = stored.y, x[2] = stored.z, x[3] = stored.w;
    } else {
      const float2 low = gpu::unpack_bf16x2(stored.x), high = gpu::unpack_bf16x2(stored.y);
      x[0] = low.x, x[1] = low.y, x[2] = high.x, x[3] = high.y;
    }
  }
};
// Of rows that are not held: no whole quads, and of either type.
template <>
struct StoredQuad<Either> {
  Quad x;
  BITNET_DEVICE void read(const ConstReals& from, std::size_t at, RowPart part) {
    load_as<Either>(from, at, part, x);
  }
  BITNET_DEVICE void value(Quad& to) const {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) to[i] = x[i];
  }
};

// What is read of a quad of the input, whose elements are T: enough for h and for the way back
// through it.
template <typename Rows, typename T>
struct InputQuad;

template <typename T>
struct InputQuad<PlainRows, T> {
  static constexpr bool kHeld = !std::is_same_v<T, Either>;
  StoredQuad<T> x;
  Quad dx;  // what is there before, if the row is held and dh is added to it
  BITNET_DEVICE void read(const NormBackward<PlainRows>& op, std::size_t at, RowPart part) {
    x.read(op.input.x, at, part);
    if constexpr (kHeld) {
      if (op.accumulate) load(static_cast<const float*>(op.dx.data) + at, part, dx);
    }
  }
  BITNET_DEVICE void value(const PlainRows&, Quad& h) const { x.value(h); }
  BITNET_DEVICE void write(const NormBackward<PlainRows>& op, std::size_t at, RowPart part,
                           Quad& dh) const {
    if (op.accumulate) {
      Quad before;
      if constexpr (!kHeld) load(static_cast<const float*>(op.dx.data) + at, part, before);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) dh[i] = (kHeld ? dx[i] : before[i]) + dh[i];
    }
    store_as<Either>(op.dx, at, part, dh);
  }
};

template <typename T>
struct InputQuad<GatedRows, T> {
  StoredQuad<T> gate, up;
  BITNET_DEVICE void read(const NormBackward<GatedRows>& op, std::size_t at, RowPart part) {
    gate.read(op.input.gate, at, part);
    if (op.input.up.data != nullptr) up.read(op.input.up, at, part);
  }
  BITNET_DEVICE void value(const GatedRows& rows, Quad& h) const {
    Quad of_gate, of_up;
    values(rows, of_gate, of_up);
    gated(rows.activation, of_gate, of_up, h);
  }
  BITNET_DEVICE void write(const NormBackward<GatedRows>& op, std::size_t at, RowPart part,
                           const Quad& dh) const {
    Quad of_gate, of_up, dgate, dup;
    values(op.input, of_gate, of_up);
    gated_backward(op.input.activation, of_gate, of_up, dh, dgate, dup);
    store_as<T>(op.dx, at, part, dgate);
    if (op.dup.data != nullptr) store_as<T>(op.dup, at, part, dup);
  }
  BITNET_DEVICE void values(const GatedRows& rows, Quad& of_gate, Quad& of_up) const {
    gate.value(of_gate);
    if (rows.up.data == nullptr) {
      of_up[0] = of_up[1] = of_up[2] = of_up[3] = 1.0f;
    } else {
      up.value(of_up);
    }
  }
};

template <typename Rows, typename Input, typename Gradient>
struct RowQuad {
  InputQuad<Rows, Input> input;
  StoredQuad<Gradient> dy;
  BITNET_DEVICE void read(const NormBackward<Rows>& op, std::size_t at, RowPart part) {
    input.read(op, at, part);
    dy.read(op.dy, at, part);
  }
};

// Bounds the registers: 64 or 80 where that is enough for two quads, else 96 or 128.
template <int kQuads, typename Input, typename Rows, RowActivation... kOnly>
constexpr int kThreadBound = kQuads == 0                                ? kMostRowThreads
                             : kQuads == 4                              ? kMostHolders
                             : ((kOnly == RowActivation::relu2) || ...) ? 1024
                             : std::is_same_v<Rows, GatedRows> && !std::is_same_v<Input, float>
                                 ? 768
                                 : 640;

// kOnly: the activation, if the kernel is made for one; without the others it needs fewer registers.
template <int kQuads, typename Input, typename Gradient, typename Rows, RowActivation... kOnly>
__global__ void __launch_bounds__((kThreadBound<kQuads, Input, Rows, kOnly...>),
                                  least_blocks(kQuads))
    norm_backward_kernel(NormBackward<Rows> op, int stretch, bool aligned) {
  if constexpr (sizeof...(kOnly) > 0) op.input.activation = (kOnly, ...);
  constexpr bool kHeld = kQuads > 0;
  constexpr bool kAhead = kQuads == 2;  // of four quads there are not enough registers
  constexpr int kHeldQuads = kHeld ? kQuads : 1;
  const std::size_t width = static_cast<std::size_t>(op.width);
  const float count = static_cast<float>(op.width);
  const int part_of_gain = row_of_thread(), first = part_of_gain * stretch,
            end = min(first + stretch, op.rows);
  float* const gain_part = op.dgain == nullptr ? nullptr : op.parts + part_of_gain * width;
  RowQuad<Rows, Input, Gradient> of_row[kHeldQuads], of_next[kAhead ? kQuads : 1];
  Quad dgain[kHeldQuads];
#pragma unroll
  for (int q = 0; q < kHeldQuads; ++q) {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) dgain[q][i] = 0.0f;
  }
  const auto each = [&](auto body) { for_each_quad<kQuads>(op.width, aligned, body); };

  const auto read = [&](int row, auto& quads) {
    each([&](int q, int at, RowPart part) { quads[q].read(op, row * width + at, part); });
  };
  if (kAhead && first < end) read(first, of_next);
  for (int row = first; row < end; ++row) {
    const std::size_t start = static_cast<std::size_t>(row) * width;
    const float mean = op.stats[2 * row], inv_std = op.stats[2 * row + 1];
    if constexpr (kAhead) {
#pragma unroll
      for (int q = 0; q < kQuads; ++q) of_row[q] = of_next[q];
      if (row + 1 < end) read(row + 1, of_next);
    } else if constexpr (kHeld) {
      read(row, of_row);
    }
    // h_hat and dy, and dy * gain, which is 0 beyond the row.
    const auto evaluate = [&](int q, int at, RowPart part, Quad& h_hat, Quad& dy, Quad& g) {
      Quad gain;
      load_or_one(op.norm.gain, at, part, gain);
      of_row[q].input.value(op.input, h_hat);
      of_row[q].dy.value(dy);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        h_hat[i] = (h_hat[i] - mean) * inv_std;
        g[i] = dy[i] * gain[i];
      }
    };

    float2 sums = make_float2(0.0f, 0.0f);  // of g and of g * h_hat
    each([&](int q, int at, RowPart part) {
      if constexpr (!kHeld) {
        of_row[q].read(op, start + at, part);
        if (gain_part != nullptr && row > first) load(gain_part + at, part, dgain[q]);
      }
      Quad h_hat, dy, g;
      evaluate(q, at, part, h_hat, dy, g);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        sums.x += g[i];
        sums.y = fmaf(g[i], h_hat[i], sums.y);
        dgain[q][i] = fmaf(dy[i], h_hat[i], kHeld || row > first ? dgain[q][i] : 0.0f);
      }
      if constexpr (!kHeld) {
        if (gain_part != nullptr) store(gain_part + at, part, dgain[q]);
      }
    });
    sums = row_sums(sums, row % 2);
    const float mean_g = op.norm.kind == RowNormKind::layer ? sums.x / count : 0.0f;
    const float mean_product = sums.y / count;
    each([&](int q, int at, RowPart part) {
      if constexpr (!kHeld) of_row[q].read(op, start + at, part);
      Quad h_hat, dy, dh;
      evaluate(q, at, part, h_hat, dy, dh);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        dh[i] = inv_std * (dh[i] - h_hat[i] * mean_product - mean_g);
      }
      of_row[q].input.write(op, start + at, part, dh);
    });
  }
  if constexpr (kHeld) {
    if (gain_part != nullptr && first < end) {
      each([&](int q, int at, RowPart part) { store(gain_part + at, part, dgain[q]); });
    }
  }
}

constexpr int kColumns = 32, kMostSlices = 32,
              kMostSumThreads = kColumns * kMostSlices;  // of a block

// Thread (c, s) adds up parts s, s + slices, … of its column; the slices follow in order.
__global__ void __launch_bounds__(kMostSumThreads)
    sum_parts_kernel(const float* parts, int count, int width, float* dgain) {
  BITNET_SHARED_ARRAY(float, of_slice, kMostSumThreads);
  const int column = static_cast<int>(blockIdx.x) * kColumns + static_cast<int>(threadIdx.x);
  const int slices = static_cast<int>(blockDim.y);
  float sum = 0.0f;
  if (column < width) {
#pragma unroll 16
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
template <RowActivation kOnly>
Kernel<GatedRows> kernel_for_bf16() {
  return norm_backward_kernel<2, __nv_bfloat16, __nv_bfloat16, GatedRows, kOnly>;
}
Kernel<GatedRows> kernel_of(const NormBackward<GatedRows>& op, int quads) {
  if (!op.dy.bf16) return kernel_for<float, float, GatedRows>(quads);
  if (quads == 0) return norm_backward_kernel<0, Either, Either, GatedRows>;
  if (quads == 4) return norm_backward_kernel<4, __nv_bfloat16, __nv_bfloat16, GatedRows>;
  switch (op.input.activation) {
    case RowActivation::silu:
      return kernel_for_bf16<RowActivation::silu>();
    case RowActivation::relu2:
      return kernel_for_bf16<RowActivation::relu2>();
    case RowActivation::gelu:
      break;
  }
  return kernel_for_bf16<RowActivation::gelu>();
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
