// SPDX-License-Identifier: MIT
// Cross-entropy, AdamW, and the sums that are returned as numbers.
#include <algorithm>

#include "core/backend/adamw_factors.h"
#include "core/backend/loss_checks.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/stretches.h"

namespace bitnet::cpu {
namespace {

constexpr std::int64_t kSumOfTile =
    4096;  // elements summed together before the tiles are added in order

// The tiles in parallel, then their sums in ascending order.
double sum_tiles(const ThreadTeam& team, double (*sum_tile)(const float*, std::int64_t),
                 const float* x, std::int64_t n, Scratch& scratch) {
  const std::int64_t tiles = tile_count(n, kSumOfTile);
  double* sums = scratch.get<double>(tiles);
  run_stretches(team, tiles, kStretch / kSumOfTile, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t tile = first; tile < first + count; ++tile) {
      sums[tile] = sum_tile(x + tile * kSumOfTile, std::min(kSumOfTile, n - tile * kSumOfTile));
    }
  });
  double total = 0;
  for (std::int64_t tile = 0; tile < tiles; ++tile) total += sums[tile];
  return total;
}

}  // namespace

void CpuBackend::cross_entropy(ConstTensorView logits, ConstTensorView targets, TensorView loss,
                               float scale, TensorView dlogits) {
  check_cross_entropy(logits, targets, loss, dlogits);
  const std::int64_t vocabulary = logits.dim(1);
  const auto ids = targets.as<std::int32_t>();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    BITNET_CHECK(ids[i] >= -1 && ids[i] < vocabulary,
                 "target {} at position {} is neither in [0, {}) nor -1 (ignored)", ids[i], i,
                 vocabulary);
  }
  const float* rows = logits.as<float>().data();
  float *losses = loss.as<float>().data(), *gradient = dlogits.as<float>().data();
  run_stretches(team(), logits.dim(0), rows_per_stretch(vocabulary),
                [&](std::int64_t first, std::int64_t count) {
                  for (std::int64_t row = first; row < first + count; ++row) {
                    float* row_gradient =
                        gradient == nullptr ? nullptr : gradient + row * vocabulary;
                    const std::int32_t target = ids[static_cast<std::size_t>(row)];
                    if (target < 0) {
                      losses[row] = 0.0f;
                      if (row_gradient != nullptr) std::fill_n(row_gradient, vocabulary, 0.0f);
                    } else {
                      losses[row] = float_->cross_entropy(rows + row * vocabulary, vocabulary,
                                                          target, scale, row_gradient);
                    }
                  }
                });
}

void CpuBackend::adamw(const AdamWStep& step, std::span<const AdamWParameter> parameters) {
  check_adamw(step, parameters);
  const AdamWFactors decaying = adamw_factors(step);
  AdamWFactors others = decaying;
  others.decay = 1;
  for (const AdamWParameter& parameter : parameters) {
    const AdamWFactors& factors = parameter.decays ? decaying : others;
    const float* g = parameter.gradient.as<float>().data();
    float *p = parameter.parameter.as<float>().data(), *m = parameter.m.as<float>().data(),
          *v = parameter.v.as<float>().data();
    run_stretches(team(), parameter.parameter.elements(), kStretch,
                  [&](std::int64_t i, std::int64_t count) {
                    float_->adamw(factors, g + i, p + i, m + i, v + i, count);
                  });
  }
}

void CpuBackend::sums(std::span<const ConstTensorView> x, std::span<const ConstTensorView> squared,
                      std::span<double> sums) {
  check_sums(x, squared, sums);
  auto next = sums.begin();
  const auto sum_each = [&](std::span<const ConstTensorView> tensors, const auto& kernel) {
    for (const ConstTensorView& tensor : tensors)
      *next++ = sum_tiles(team(), kernel, tensor.as<float>().data(), tensor.elements(),
                          reduction_scratch_);
  };
  sum_each(x, float_->sum);
  sum_each(squared, float_->sum_of_squares);
}

}  // namespace bitnet::cpu
