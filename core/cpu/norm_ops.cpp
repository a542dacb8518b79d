// SPDX-License-Identifier: MIT
// RMSNorm and LayerNorm, alone and with the quantisation of their result.
#include "core/cpu/norm_rows.h"

namespace bitnet::cpu {

void CpuBackend::norm(NormKind kind, ConstTensorView x, ConstTensorView gain, float eps,
                      TensorView y, TensorView stats) {
  check_norm(x, gain, y, stats);
  const std::int64_t n = x.dim(1);
  const RowNorm arguments = row_norm(kind, gain, eps);
  const float* from = x.as<float>().data();
  float *to = y.as<float>().data(), *row_stats = stats.as<float>().data();
  issue([=, this, all_rows = x.dim(0)](std::int64_t) {
    run_stretches(
        issued_team_, all_rows, rows_per_stretch(n), [&](std::int64_t row, std::int64_t rows) {
          float_->norm(arguments, from + row * n, rows, n, to + row * n, row_stats + row * 2);
        });
  });
}

void CpuBackend::norm_backward(NormKind kind, ConstTensorView x, ConstTensorView gain,
                               ConstTensorView stats, ConstTensorView dy, TensorView dx,
                               bool accumulate_dx, TensorView dgain) {
  check_norm_backward(x, gain, stats, dy, dx, dgain);
  const std::int64_t n = x.dim(1);
  const RowNorm arguments = row_norm(kind, gain, 0.0f);
  const float *inputs = x.as<float>().data(), *row_stats = stats.as<float>().data(),
              *from = dy.as<float>().data();
  float* to = dx.as<float>().data();
  run_gain_tiles(team(), *float_, reduction_scratch_, x.dim(0), n, dgain,
                 [&](std::int64_t row, std::int64_t rows, float* gain_part) {
                   float_->norm_backward(arguments, inputs + row * n, row_stats + row * 2,
                                         from + row * n, rows, n, to + row * n, accumulate_dx,
                                         gain_part);
                 });
}

void CpuBackend::norm_quantize(const NormArguments& norm, ConstTensorView x, TensorView codes,
                               TensorView act_scale, TensorView stats) {
  check_norm_quantize(norm, x, codes, act_scale, stats);
  const std::int64_t n = x.dim(1);
  const RowNorm arguments = row_norm(norm.kind, norm.gain, norm.eps);
  const float* from = x.as<float>().data();
  std::int8_t* to = codes.as<std::int8_t>().data();
  float *scales = act_scale.as<float>().data(), *row_stats = stats.as<float>().data();
  issue([=, this, all_rows = x.dim(0)](std::int64_t) {
    run_stretches(issued_team_, all_rows, rows_per_stretch(n),
                  [&](std::int64_t row, std::int64_t rows) {
                    float_->norm_quantize(arguments, from + row * n, rows, n, to + row * n,
                                          scales + row, row_stats + row * 2);
                  });
  });
}

}  // namespace bitnet::cpu
