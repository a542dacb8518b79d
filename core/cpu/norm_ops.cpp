// SPDX-License-Identifier: MIT
// RMSNorm and LayerNorm.
#include <algorithm>

#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/stretches.h"

namespace bitnet::cpu {
namespace {

constexpr std::int64_t kGainTile = 64;  // rows whose part of dgain is summed together

void check_norm(ConstTensorView x, ConstTensorView gain, ConstTensorView y, ConstTensorView stats) {
  BITNET_CHECK(x.shape().rank() == 2 && x.dim(1) >= 1, "a norm's input is {}, expected [rows, D]",
               x.shape().to_string());
  BITNET_CHECK(y.shape() == x.shape() && stats.shape() == (Shape{x.dim(0), 2}),
               "a norm of {} got {} and stats {}, expected {} and [{}, 2]", x.shape().to_string(),
               y.shape().to_string(), stats.shape().to_string(), x.shape().to_string(), x.dim(0));
  BITNET_CHECK(!gain || gain.elements() == x.dim(1),
               "a norm of {} has a gain of {} elements, expected {}", x.shape().to_string(),
               gain.elements(), x.dim(1));
}

}  // namespace

void CpuBackend::norm(NormKind kind, ConstTensorView x, ConstTensorView gain, float eps,
                      TensorView y, TensorView stats) {
  check_norm(x, gain, y, stats);
  const std::int64_t n = x.dim(1);
  const float *from = x.as<float>().data(), *gains = gain.as<float>().data();
  float *to = y.as<float>().data(), *row_stats = stats.as<float>().data();
  run_stretches(team_, x.dim(0), rows_per_stretch(n), [&](std::int64_t row, std::int64_t rows) {
    float_->norm(kind == NormKind::layer, from + row * n, gains, eps, rows, n, to + row * n,
                 row_stats + row * 2);
  });
}

void CpuBackend::norm_backward(NormKind kind, ConstTensorView x, ConstTensorView gain,
                               ConstTensorView stats, ConstTensorView dy, TensorView dx,
                               TensorView dgain) {
  check_norm(x, gain, dx, stats);
  BITNET_CHECK(dy.shape() == x.shape(), "dy is {}, expected the shape of x, {}",
               dy.shape().to_string(), x.shape().to_string());
  BITNET_CHECK(!dgain || dgain.elements() == x.dim(1), "dgain has {} elements, expected {}",
               dgain.elements(), x.dim(1));
  const std::int64_t n = x.dim(1), rows = x.dim(0);
  const float *inputs = x.as<float>().data(), *gains = gain.as<float>().data();
  const float *row_stats = stats.as<float>().data(), *from = dy.as<float>().data();
  float *to = dx.as<float>().data(), *gain_gradient = dgain.as<float>().data();
  const std::int64_t tiles = tile_count(rows, kGainTile);
  float* partial = dgain ? reduction_scratch_.get<float>(tiles * n) : nullptr;  // [tiles, D]
  run_stretches(team_, rows, kGainTile, [&](std::int64_t row, std::int64_t count) {
    float* tile_gradient = partial == nullptr ? nullptr : partial + row / kGainTile * n;
    if (tile_gradient != nullptr) std::fill_n(tile_gradient, n, 0.0f);
    float_->norm_backward(kind == NormKind::layer, inputs + row * n, gains, row_stats + row * 2,
                          from + row * n, count, n, to + row * n, tile_gradient);
  });
  if (partial == nullptr) return;
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    float_->add(gain_gradient, partial + tile * n, gain_gradient, n);
  }
}

}  // namespace bitnet::cpu
