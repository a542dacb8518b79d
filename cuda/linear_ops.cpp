// SPDX-License-Identifier: MIT
// Products of floats, on tensor cores: operands in bf16 (f32 ones rounded, 2^-8 relative), fp32 sums. Forward
// by our own kernel, so that a row's bits depend on that row alone; gradients by cuBLASLt where
// there is one. Also the bf16 gradients of a BitLinear.
#include "core/backend/linear_checks.h"
#include "cuda/bf16_gemm.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/matrix_products.h"
#include "cuda/to_bf16.h"

namespace bitnet::cuda {
namespace {

// A tile is a multiprocessor's work: with fewer large ones, small ones keep a GPU busier.
constexpr std::int64_t kEnoughLargeTiles = 128;
constexpr std::int64_t kLargeTile = 128;
constexpr std::int64_t kFewRows = 16;

// What the bf16 kernels take: a grid has 65,535 rows of tiles, each of at least 64 rows of a matrix;
// bf16_gemm's depth is below 2^24. Each size of a product is the depth of one of its gradients.
constexpr std::int64_t kMostLines = 65'535 * 64, kMostColumns = (1 << 24) - 64;

void check_sizes(std::int64_t rows, std::int64_t inputs, std::int64_t outputs) {
  BITNET_CHECK(rows <= kMostLines && outputs <= kMostLines && inputs <= kMostColumns,
               "a product of {} rows, {} inputs and {} outputs, expected at most {}, {} and {}",
               rows, inputs, outputs, kMostLines, kMostColumns, kMostLines);
}

// What a product reads: lines padded to a multiple of 8 elements.
struct Operand {
  const __nv_bfloat16* data;
  std::int64_t count, depth;
};

// Room for an operand.
struct Lines {
  __nv_bfloat16* data;
  std::int64_t count, depth;

  Lines(Workspace::Frame& frame, std::int64_t lines, std::int64_t elements)
      : data(frame.get<__nv_bfloat16>(lines * bf16_padded(elements))),
        count(lines),
        depth(bf16_padded(elements)) {}
  Bf16Lines from(std::int64_t column) const { return {data + column, depth}; }
  operator Bf16Lines() const { return from(0); }
  operator Operand() const { return {data, count, depth}; }
};

// Whether the rows of a matrix are an operand as they are.
bool is_operand(ConstTensorView x) {
  const std::int64_t columns = x.dim(1);
  return x.dtype() == DType::bf16 && columns == bf16_padded(columns) && reals(x).aligned(16);
}
Operand rows_of(ConstTensorView x) { return {data<__nv_bfloat16>(x), x.dim(0), x.dim(1)}; }

Bf16Gemm product_of(const Operand& a, const Operand& b, const Reals& y, bool accumulate) {
  return {a.data, b.data, y, as_int(a.count), as_int(b.count), as_int(a.depth), accumulate};
}

Bf16GemmTile tile_of(const Bf16Gemm& p) {
  const auto tiles = [](std::int64_t n) { return (n + kLargeTile - 1) / kLargeTile; };
  if (p.rows <= kFewRows) return Bf16GemmTile::few_rows;
  const bool enough = tiles(p.rows) * tiles(p.columns) >= kEnoughLargeTiles;
  return enough ? Bf16GemmTile::large : Bf16GemmTile::small;
}

void multiply_gradients(MatrixProducts& products, const Bf16Gemm& p, cudaStream_t stream,
                        const char* operation) {
  if (!products.bf16({p.rows, p.columns, p.depth}, p.a, p.b, p.y, p.accumulate)) {
    check(bf16_gemm(p, tile_of(p), stream), operation);
  }
}

}  // namespace

void CudaBackend::linear(ConstTensorView x, ConstTensorView w, TensorView y) {
  check_linear(x.shape(), w.shape(), y);
  check_sizes(x.dim(0), x.dim(1), w.dim(0));
  const std::int64_t rows = x.dim(0), inputs = x.dim(1), outputs = w.dim(0);
  const Reals to = reals(y);
  if (rows == 0 || outputs == 0) return;
  if (inputs == 0) return zero(y);
  Workspace::Frame frame(workspace_);
  const bool x_as_is = is_operand(x);
  const Lines a(frame, x_as_is ? 0 : rows, inputs), b(frame, outputs, inputs);
  RealsToBf16 convert_x{reals(x), as_int(rows), as_int(inputs)};
  convert_x.plain = a;
  RealsToBf16 convert_w{w.as<float>().data(), as_int(outputs), as_int(inputs)};
  convert_w.plain = b;
  if (!x_as_is) check(to_bf16(convert_x, stream_), "linear");
  check(to_bf16(convert_w, stream_), "linear");
  const Bf16Gemm product = product_of(x_as_is ? rows_of(x) : Operand(a), b, to, false);
  check(bf16_gemm(product, tile_of(product), stream_), "linear");
}

void CudaBackend::linear_backward(ConstTensorView x, ConstTensorView w, ConstTensorView dy,
                                  TensorView dx, bool accumulate_dx, TensorView dw) {
  check_linear_backward(x.shape(), w.shape(), dy, dx, dw);
  check_sizes(x.dim(0), x.dim(1), w.dim(0));
  const std::int64_t rows = x.dim(0), inputs = x.dim(1), outputs = w.dim(0);
  const ConstReals from_x = reals(x), from_w = w.as<float>().data(), from_dy = reals(dy);
  const Reals to_dx = reals(dx), to_dw = dw.as<float>().data();
  if (rows == 0 || inputs == 0 || (!dx && !dw)) return;
  if (outputs == 0) {
    if (dx && !accumulate_dx) zero(dx);
    return;
  }
  bool wants_dx = static_cast<bool>(dx), wants_dw = static_cast<bool>(dw);
  // cuBLASLt reads operands in either order, if their lines begin at 16 bytes.
  if (inputs == bf16_padded(inputs) && outputs == bf16_padded(outputs) &&
      products_->unusable().empty()) {
    Workspace::Frame frame(workspace_);
    const auto operand = [&](ConstTensorView matrix, const ConstReals& from) -> Operand {
      if (is_operand(matrix)) return rows_of(matrix);
      const Lines lines(frame, matrix.dim(0), matrix.dim(1));
      RealsToBf16 convert{from, as_int(matrix.dim(0)), as_int(matrix.dim(1))};
      convert.plain = lines;
      check(to_bf16(convert, stream_), "linear_backward");
      return lines;
    };
    constexpr auto kAlongK = OperandOrder::along_k, kAlongRows = OperandOrder::along_rows;
    const Operand of_dy = operand(dy, from_dy);
    if (wants_dx) {
      wants_dx = !products_->bf16({rows, inputs, outputs, kAlongK, kAlongRows}, of_dy.data,
                                  operand(w, from_w).data, to_dx, accumulate_dx);
    }
    if (wants_dw) {
      wants_dw = !products_->bf16({outputs, inputs, rows, kAlongRows, kAlongRows}, of_dy.data,
                                  operand(x, from_x).data, to_dw, true);
    }
    if (!wants_dx && !wants_dw) return;
  }
  Workspace::Frame frame(workspace_);
  const bool dy_as_is = is_operand(dy), convert_rows = wants_dx && !dy_as_is;
  const Lines dy_rows(frame, convert_rows ? rows : 0, outputs),
      dy_columns(frame, wants_dw ? outputs : 0, rows);
  RealsToBf16 convert_dy{from_dy, as_int(rows), as_int(outputs)};
  if (convert_rows) convert_dy.plain = dy_rows;
  if (wants_dw) convert_dy.transposed = dy_columns;
  if (convert_rows || wants_dw) check(to_bf16(convert_dy, stream_), "linear_backward");
  // y = [y +] a · matrix, which is [matrix_rows, K].
  const auto multiply_transposed = [&](const Operand& a, const ConstReals& matrix,
                                       std::int64_t matrix_rows, const Reals& y, bool accumulate) {
    Workspace::Frame inner(workspace_);
    const Lines b(inner, inputs, matrix_rows);
    RealsToBf16 convert{matrix, as_int(matrix_rows), as_int(inputs)};
    convert.transposed = b;
    check(to_bf16(convert, stream_), "linear_backward");
    multiply_gradients(*products_, product_of(a, b, y, accumulate), stream_, "linear_backward");
  };
  if (wants_dx) {
    multiply_transposed(dy_as_is ? rows_of(dy) : Operand(dy_rows), from_w, outputs, to_dx,
                        accumulate_dx);
  }
  if (wants_dw) multiply_transposed(dy_columns, from_x, rows, to_dw, true);
}

// A single weight_scale and act_scale[t] go to dy, where they are rounded together with it: trits
// and codes are exact in bf16. All products of dx are one, its sum going over all their outputs.
void CudaBackend::bit_linear_backward_bf16(ConstTensorView codes, ConstTensorView act_scale,
                                           std::span<const BitLinearGradient> gradients,
                                           TensorView dx) {
  const std::int64_t rows = codes.dim(0), inputs = codes.dim(1);
  if (rows == 0) return;
  std::int64_t all_outputs = 0;
  bool wants_dw = false;
  for (const BitLinearGradient& g : gradients) {
    all_outputs += bf16_padded(g.dy.dim(1));
    wants_dw = wants_dw || g.dw;
  }
  if (!dx && !wants_dw) return;
  check_sizes(rows, inputs, all_outputs);
  const char* const operation = "bit_linear_backward";
  Workspace::Frame frame(workspace_);
  const Lines dy_rows(frame, dx ? rows : 0, all_outputs), w(frame, dx ? inputs : 0, all_outputs);
  const Lines x(frame, wants_dw ? inputs : 0, rows);
  if (wants_dw) {
    check(to_bf16(CodesToBf16{codes.as<std::int8_t>().data(), as_int(rows), as_int(inputs), x},
                  stream_),
          operation);
  }
  std::int64_t first = 0;  // output, in dy_rows and w
  for (const BitLinearGradient& g : gradients) {
    if (!dx && !g.dw) continue;
    const std::int64_t outputs = g.dy.dim(1);
    const bool grouped = g.weight_scale.shape().rank() == 2;
    const float* weight_scale = g.weight_scale.as<float>().data();
    Workspace::Frame inner(workspace_);
    const Lines dy_columns(inner, g.dw ? outputs : 0, rows);
    RealsToBf16 convert_dy{reals(g.dy), as_int(rows), as_int(outputs)};
    if (dx) {
      convert_dy.plain = dy_rows.from(first);
      convert_dy.scale = grouped ? nullptr : weight_scale;
      TernaryToBf16 convert_w{g.packed.as<std::uint8_t>().data()};
      convert_w.scale = grouped ? weight_scale : nullptr;
      convert_w.group_size = grouped ? as_int(inputs / g.weight_scale.dim(1)) : 0;
      convert_w.rows = as_int(outputs);
      convert_w.columns = as_int(inputs);
      convert_w.transposed = w.from(first);
      check(to_bf16(convert_w, stream_), operation);
    }
    if (g.dw) {
      convert_dy.transposed = dy_columns;
      convert_dy.row_scale = act_scale.as<float>().data();
    }
    check(to_bf16(convert_dy, stream_), operation);
    if (g.dw) {
      multiply_gradients(*products_, product_of(dy_columns, x, g.dw.as<float>().data(), true),
                         stream_, operation);
    }
    first += bf16_padded(outputs);
  }
  if (dx) {
    multiply_gradients(*products_, product_of(dy_rows, w, reals(dx), false), stream_, operation);
  }
}

}  // namespace bitnet::cuda
