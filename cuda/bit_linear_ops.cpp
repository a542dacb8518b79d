// SPDX-License-Identifier: MIT
// Products of int8 activations: with packed ternary weights, and with the int8 rows of an output
// head. A few tokens, as in decoding, are products without tensor cores, bound by reading the weights.
#include <algorithm>

#include "core/backend/linear_checks.h"
#include "core/backend/packed_shape.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/int8_gemm.h"
#include "cuda/int8_gemv.h"
#include "cuda/packed_gemm.h"
#include "cuda/packed_gemv.h"
#include "cuda/unpack_codes.h"

namespace bitnet::cuda {
namespace {

constexpr std::int64_t kMostTernaryInputs = (1 << 24) - 1;  // |sum| <= 128 K fits into int32

void check_activations(ConstTensorView codes, ConstTensorView act_scale) {
  BITNET_CHECK(codes.shape().rank() == 2 && act_scale.elements() == codes.dim(0) &&
                   codes.dim(0) <= kMostElements,
               "codes {}, act_scale {}: expected [rows, K], [rows]", codes.shape().to_string(),
               act_scale.shape().to_string());
}

PackedShape check_weights(ConstTensorView packed, ConstTensorView weight_scale,
                          std::int64_t inputs) {
  const PackedShape shape = packed_shape(packed, weight_scale);
  BITNET_CHECK(
      shape.inputs == inputs && inputs <= kMostTernaryInputs && shape.outputs <= kMostElements,
      "packed {} for {} inputs: expected [N / 4, K]", packed.shape().to_string(), inputs);
  return shape;
}

}  // namespace

void CudaBackend::bit_linear(ConstTensorView codes, ConstTensorView act_scale,
                             std::span<const BitLinearProduct> products) {
  BITNET_CHECK(products.size() <= kPackedGemvProducts,
               "{} products share an input, expected at most {}", products.size(),
               kPackedGemvProducts);
  check_activations(codes, act_scale);
  const std::int64_t rows = codes.dim(0), inputs = codes.dim(1);
  if (rows == 0 || products.empty()) return;
  PackedGemv gemv{};
  gemv.codes = codes.as<std::int8_t>().data();
  gemv.act_scale = act_scale.as<float>().data();
  gemv.tokens = as_int(rows);
  gemv.depth = as_int(inputs);
  for (const BitLinearProduct& product : products) {
    const PackedShape shape = check_weights(product.packed, product.weight_scale, inputs);
    const Shape y_shape = {rows, shape.outputs};
    BITNET_CHECK(
        product.y.shape() == y_shape && (!product.residual || product.residual.shape() == y_shape),
        "codes {}, packed {}, y {}, residual {}: expected [rows, K], [N / 4, K], [rows, N], "
        "[rows, N] or none",
        codes.shape().to_string(), product.packed.shape().to_string(),
        product.y.shape().to_string(), product.residual.shape().to_string());
    BITNET_CHECK(!product.residual || product.y.dtype() == DType::f32,
                 "y is {} with a residual, expected f32", to_string(product.y.dtype()));
    gemv.matrix[gemv.products++] = {product.packed.as<std::uint8_t>().data(),
                                    product.weight_scale.as<float>().data(),
                                    as_int(shape.outputs),
                                    shape.single_scale ? 0 : as_int(shape.groups),
                                    product.residual.as<float>().data(),
                                    reals(product.y)};
  }
  if (rows <= kPackedGemvTokens) return check(packed_gemv(gemv, stream_), "bit_linear");
  PackedGemv single = gemv;  // those with a single scale, in one launch
  single.products = 0;
  for (int i = 0; i < gemv.products; ++i) {
    const PackedMatrix& m = gemv.matrix[i];
    if (m.groups == 0 && gemv.depth <= kPackedGemmDepth) {
      single.matrix[single.products++] = m;
      continue;
    }
    Workspace::Frame frame(workspace_);
    auto* const trits = frame.get<std::int8_t>(m.columns * inputs);
    check(unpack_codes(m.packed, m.columns / 4, gemv.depth, trits, stream_), "bit_linear");
    Int8Gemm gemm{};
    gemm.a = gemv.codes;
    gemm.b = trits;
    gemm.rows = gemv.tokens;
    gemm.columns = m.columns;
    gemm.depth = gemv.depth;
    gemm.kind = m.groups == 0 ? Int8Scale::tensor : Int8Scale::column_groups;
    gemm.scale = m.weight_scale;
    gemm.group_size = gemv.depth / std::max(m.groups, 1);
    gemm.row_scale = gemv.act_scale;
    gemm.addend = m.residual;
    gemm.y = m.y;
    int8_product(gemm);
  }
  if (single.products > 0) packed_product(single);
}

void CudaBackend::int8_linear(ConstTensorView codes, ConstTensorView act_scale,
                              ConstTensorView weights, ConstTensorView row_scale, TensorView y) {
  check_activations(codes, act_scale);
  check_int8_linear(codes, act_scale, weights, row_scale, y);
  BITNET_CHECK(weights.dim(0) <= kMostElements, "{} outputs, expected at most {}", weights.dim(0),
               kMostElements);
  const std::int64_t rows = codes.dim(0), inputs = codes.dim(1), outputs = weights.dim(0);
  if (rows == 0) return;
  const std::int8_t *const x = codes.as<std::int8_t>().data(), *const w =
                                                                   weights.as<std::int8_t>().data();
  const float *const token_scale = act_scale.as<float>().data(), *const scale =
                                                                     row_scale.as<float>().data();
  float* const to = y.as<float>().data();
  if (rows <= kInt8GemvTokens || inputs % 16 != 0) {
    const Int8Gemv gemv{
        x, token_scale, w, scale, to, as_int(rows), as_int(outputs), as_int(inputs)};
    return check(int8_gemv(gemv, stream_), "int8_linear");
  }
  Int8Gemm gemm{};
  gemm.a = x;
  gemm.b = w;
  gemm.rows = as_int(rows);
  gemm.columns = as_int(outputs);
  gemm.depth = as_int(inputs);
  gemm.kind = Int8Scale::column;
  gemm.scale = scale;
  gemm.row_scale = token_scale;
  gemm.y = to;
  int8_product(gemm);
}

}  // namespace bitnet::cuda
