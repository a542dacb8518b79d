// SPDX-License-Identifier: MIT
#include "core/backend/linear_checks.h"

namespace bitnet {
namespace {

constexpr std::int64_t kMostInt8Inputs = 1 << 16;  // |sum| <= 2^14 K fits into int32

void check_product(const Shape& x, const Shape& w, const char* y_name, ConstTensorView y) {
  BITNET_CHECK(x.rank() == 2 && w.rank() == 2 && x[1] == w[1] && y.shape() == (Shape{x[0], w[0]}),
               "x {}, w {}, {} {}: expected [rows, K], [N, K], [rows, N]", x.to_string(),
               w.to_string(), y_name, y.shape().to_string());
}

}  // namespace

void check_linear(const Shape& x, const Shape& w, ConstTensorView y) {
  check_product(x, w, "y", y);
}

void check_linear_backward(const Shape& x, const Shape& w, ConstTensorView dy, ConstTensorView dx,
                           ConstTensorView dw) {
  check_product(x, w, "dy", dy);
  BITNET_CHECK(!dx || dx.shape() == x, "dx is {}, expected the shape of x, {}",
               dx.shape().to_string(), x.to_string());
  BITNET_CHECK(!dw || dw.shape() == w, "dw is {}, expected the shape of w, {}",
               dw.shape().to_string(), w.to_string());
}

void check_int8_linear(ConstTensorView codes, ConstTensorView act_scale, ConstTensorView weights,
                       ConstTensorView row_scale, ConstTensorView y) {
  BITNET_CHECK(
      codes.shape().rank() == 2 && weights.shape().rank() == 2 && codes.dim(1) == weights.dim(1) &&
          weights.elements() > 0 && codes.dim(1) <= kMostInt8Inputs &&
          act_scale.elements() == codes.dim(0) && row_scale.elements() == weights.dim(0) &&
          y.shape() == (Shape{codes.dim(0), weights.dim(0)}),
      "codes {}, act_scale {}, weights {}, row_scale {}, y {}: expected [rows, K], "
      "[rows], [N, K], [N], [rows, N] with K <= {}",
      codes.shape().to_string(), act_scale.shape().to_string(), weights.shape().to_string(),
      row_scale.shape().to_string(), y.shape().to_string(), kMostInt8Inputs);
}

}  // namespace bitnet
