// SPDX-License-Identifier: MIT
// Quantisation and its way back, and what is counted in packed codes.
#include <algorithm>
#include <atomic>
#include <bit>

#include "core/backend/element_checks.h"
#include "core/backend/row_checks.h"
#include "core/backend/weight_checks.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/integer_kernels.h"
#include "core/cpu/stretches.h"

namespace bitnet::cpu {
namespace {

constexpr std::int64_t kCheckedBytes = 1 << 18;  // of a task of valid_codes

// The statistics of a stretch of weights that shares one scale.
struct WeightStatistics {
  float scale;
  float mean;  // only for b1
};

// What pack_ternary or pack_binary needs for these statistics.
float pack_constant(LinearKind kind, const WeightStatistics& statistics) {
  return kind == LinearKind::b158 ? 1.0f / statistics.scale : statistics.mean;
}

void magnitudes_of(const float* w, std::int64_t count, std::uint32_t* magnitude_bits) {
  for (std::int64_t k = 0; k < count; ++k) {
    magnitude_bits[k] = std::bit_cast<std::uint32_t>(w[k]) & 0x7fffffffu;
  }
}

// weight_scale() and weight_mean(). sum_of(kernel) sums by tiles; magnitudes() returns |w| for
// absmedian.
template <typename SumOf, typename Magnitudes>
WeightStatistics statistics_of(const IntegerKernels& kernels, const WeightQuantizer& q,
                               std::int64_t count, const SumOf& sum_of,
                               const Magnitudes& magnitudes) {
  WeightStatistics statistics{};
  if (q.measure == ScaleMeasure::absmean) {
    statistics.scale = weight_scale_of_sum(sum_of(kernels.sum_abs_tile), count);
  } else {
    statistics.scale = weight_scale_of_magnitudes({magnitudes(), static_cast<std::size_t>(count)});
  }
  if (q.kind == LinearKind::b1) {
    statistics.mean = weight_mean_of_sum(sum_of(kernels.sum_tile), count);
  }
  return statistics;
}

using SumKernel = double (*)(const float* w, std::int64_t count);
using PackKernel = void (*)(const float* w, std::int64_t row_stride, std::int64_t columns,
                            const float* constants, std::uint8_t* packed);

// One packed row, as pack_ternary and pack_binary write it. Returns how many codes it changed.
std::int64_t repack(PackKernel pack, const float* w, std::int64_t row_stride, std::int64_t columns,
                    const float* constants, std::uint8_t* packed) {
  constexpr std::int64_t kBlock = 1024;
  std::uint8_t block[kBlock];
  std::int64_t flips = 0;
  for (std::int64_t c = 0; c < columns; c += kBlock) {
    const std::int64_t count = std::min(kBlock, columns - c);
    pack(w + c, row_stride, count, constants, block);
    const auto bytes = static_cast<std::size_t>(count);
    flips += count_flips({block, bytes}, {packed + c, bytes});
    std::copy_n(block, count, packed + c);
  }
  return flips;
}

// Of one group, within a task. `scratch` has room for its elements if the measure is absmedian.
WeightStatistics group_statistics(const IntegerKernels& kernels, const WeightQuantizer& q,
                                  const float* w, std::int64_t count, std::uint32_t* scratch) {
  const auto sum_of = [&](SumKernel sum_of_tile) {
    double sum = 0;
    for (std::int64_t k = 0; k < count; k += kSumTile) {
      sum += sum_of_tile(w + k, std::min(kSumTile, count - k));
    }
    return sum;
  };
  return statistics_of(kernels, q, count, sum_of, [&] {
    magnitudes_of(w, count, scratch);
    return scratch;
  });
}

// Of a whole matrix, its tiles in parallel.
WeightStatistics matrix_statistics(const ThreadTeam& team, const IntegerKernels& kernels,
                                   const WeightQuantizer& q, const float* w, std::int64_t count,
                                   std::uint32_t* scratch, double* tile_sums) {
  const auto sum_of = [&](SumKernel sum_of_tile) {
    const std::int64_t tiles = tile_count(count, kSumTile);
    run_stretches(team, tiles, kStretch / kSumTile, [&](std::int64_t first, std::int64_t n) {
      for (std::int64_t tile = first; tile < first + n; ++tile) {
        const std::int64_t k = tile * kSumTile;
        tile_sums[tile] = sum_of_tile(w + k, std::min(kSumTile, count - k));
      }
    });
    double sum = 0;
    for (std::int64_t tile = 0; tile < tiles; ++tile) sum += tile_sums[tile];
    return sum;
  };
  return statistics_of(kernels, q, count, sum_of, [&] {
    run_stretches(team, count, kStretch, [&](std::int64_t first, std::int64_t n) {
      magnitudes_of(w + first, n, scratch + first);
    });
    return scratch;
  });
}

}  // namespace

void CpuBackend::quantize_activations(ConstTensorView x, TensorView codes, TensorView act_scale) {
  check_quantized(x, codes, act_scale);
  const std::int64_t columns = x.dim(1);
  const bool widen = x.dtype() == DType::bf16;
  const float* floats = widen ? nullptr : x.as<float>().data();
  const auto* halves = reinterpret_cast<const std::uint16_t*>(x.raw());
  std::int8_t* to = codes.as<std::int8_t>().data();
  float* scale = act_scale.as<float>().data();
  // A few large tasks for a large matrix: threads that touch one fresh page together each fill one.
  constexpr std::int64_t kTasks = 64;
  issue([=, this, all_rows = x.dim(0)](std::int64_t) {
    const ThreadScratch<float> row_scratch(thread_scratch_, issued_team_, widen ? columns : 0);
    run_stretches(issued_team_, all_rows, std::max(rows_per_stretch(columns), all_rows / kTasks),
                  [&](std::int64_t row, std::int64_t rows) {
                    float* const widened = row_scratch.get();
                    for (std::int64_t t = row; t < row + rows; ++t) {
                      if (widen) widen_bf16(halves + t * columns, columns, widened);
                      scale[t] = integer_->quantize_row(widen ? widened : floats + t * columns,
                                                        columns, to + t * columns);
                    }
                  });
  });
}

void CpuBackend::dequantize_activations(ConstTensorView codes, ConstTensorView act_scale,
                                        TensorView x) {
  check_quantized(x, codes, act_scale);
  const std::int64_t columns = x.dim(1);
  const std::int8_t* from = codes.as<std::int8_t>().data();
  const float* scale = act_scale.as<float>().data();
  float* to = x.as<float>().data();
  run_stretches(team(), x.dim(0), rows_per_stretch(columns),
                [&](std::int64_t row, std::int64_t rows) {
                  for (std::int64_t t = row; t < row + rows; ++t) {
                    integer_->scale_codes(from + t * columns, scale[t], columns, to + t * columns);
                  }
                });
}

void CpuBackend::quantize_weights(const WeightQuantizer& q,
                                  std::span<const WeightQuantization> matrices) {
  for (const WeightQuantization& matrix : matrices) quantize_matrix(q, matrix);
}

void CpuBackend::quantize_matrix(const WeightQuantizer& q, const WeightQuantization& matrix) {
  const auto& [w, packed, weight_scale, flips] = matrix;
  const PackedShape shape = check_quantize_weights(q, w, packed, weight_scale, flips);
  const float* weights = w.as<float>().data();
  float* scales = weight_scale.as<float>().data();
  std::uint8_t* bytes = packed.as<std::uint8_t>().data();
  const std::int64_t elements = w.elements();
  std::uint32_t* magnitudes =
      q.measure == ScaleMeasure::absmedian ? weight_scratch_.get<std::uint32_t>(elements) : nullptr;
  const PackKernel pack =
      q.kind == LinearKind::b158 ? integer_->pack_ternary : integer_->pack_binary;
  const std::int64_t row_stride = shape.quarter * shape.inputs;  // between the rows of a byte

  WeightStatistics whole{};
  if (shape.single_scale) {
    whole = matrix_statistics(team(), *integer_, q, weights, elements, magnitudes,
                              reduction_scratch_.get<double>(tile_count(elements, kSumTile)));
    scales[0] = whole.scale;
  }
  std::atomic<std::int32_t> changed = 0;
  run_stretches(team(), shape.quarter, rows_per_stretch(4 * shape.inputs),
                [&](std::int64_t first, std::int64_t count) {
                  std::int64_t task_flips = 0;
                  for (std::int64_t r = first; r < first + count; ++r) {
                    for (std::int64_t g = 0; g < shape.groups; ++g) {
                      const std::int64_t start = r * shape.inputs + g * shape.group_size;
                      float constants[4];
                      for (std::int64_t i = 0; i < 4; ++i) {
                        WeightStatistics statistics = whole;
                        if (!shape.single_scale) {
                          const std::int64_t k = start + i * row_stride;
                          statistics =
                              group_statistics(*integer_, q, weights + k, shape.group_size,
                                               magnitudes == nullptr ? nullptr : magnitudes + k);
                          scales[(i * shape.quarter + r) * shape.groups + g] = statistics.scale;
                        }
                        constants[i] = pack_constant(q.kind, statistics);
                      }
                      task_flips += repack(pack, weights + start, row_stride, shape.group_size,
                                           constants, bytes + start);
                    }
                  }
                  changed += static_cast<std::int32_t>(task_flips);
                });
  if (flips) flips.as<std::int32_t>()[0] = changed;
}

void CpuBackend::dequantize_weights(ConstTensorView packed, ConstTensorView weight_scale,
                                    TensorView w) {
  const PackedShape shape = check_weights(w, packed, weight_scale);
  const std::uint8_t* bytes = packed.as<std::uint8_t>().data();
  const float* scales = weight_scale.as<float>().data();
  float* weights = w.as<float>().data();
  run_stretches(
      team(), shape.quarter, rows_per_stretch(4 * shape.inputs),
      [&](std::int64_t first, std::int64_t count) {
        for (std::int64_t r = first; r < first + count; ++r) {
          for (std::int64_t g = 0; g < shape.groups; ++g) {
            const std::int64_t start = r * shape.inputs + g * shape.group_size;
            float four[4];
            for (std::int64_t i = 0; i < 4; ++i) {
              four[i] = scales[shape.single_scale ? 0 : (i * shape.quarter + r) * shape.groups + g];
            }
            integer_->unpack_scaled(bytes + start, shape.group_size, four, weights + start,
                                    shape.quarter * shape.inputs);
          }
        }
      });
}

void CpuBackend::blend(ConstTensorView x, ConstTensorView quantized, float amount, TensorView out) {
  check_blend(x, quantized, out);
  const float* a = x.as<float>().data();
  const float* b = quantized.as<float>().data();
  float* y = out.as<float>().data();
  run_stretches(team(), x.elements(), kStretch, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t k = first; k < first + count; ++k) y[k] = a[k] + amount * (b[k] - a[k]);
  });
}

void CpuBackend::count_codes(std::span<const ConstTensorView> packed,
                             std::span<CodeCounts> counts) {
  check_count_codes(packed, counts);
  for (std::size_t i = 0; i < packed.size(); ++i) {
    const auto bytes = packed[i].as<std::uint8_t>();
    const std::int64_t size = packed[i].elements(), tiles = tile_count(size, kStretch);
    auto* of_tiles = reduction_scratch_.get<CodeCounts>(tiles);
    run_stretches(team(), size, kStretch, [&](std::int64_t first, std::int64_t count) {
      of_tiles[first / kStretch] = bitnet::count_codes(
          bytes.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
    });
    CodeCounts total;
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      total.minus += of_tiles[tile].minus;
      total.zero += of_tiles[tile].zero;
      total.plus += of_tiles[tile].plus;
      total.invalid += of_tiles[tile].invalid;
    }
    counts[i] = total;
  }
}

bool CpuBackend::valid_codes(ConstTensorView packed) {
  const auto bytes = packed.as<std::uint8_t>();
  std::atomic<bool> valid = true;
  run_stretches(
      team(), packed.elements(), kCheckedBytes, [&](std::int64_t first, std::int64_t count) {
        const auto part =
            bytes.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
        if (find_invalid_code(part) >= 0) valid = false;
      });
  return valid;
}

}  // namespace bitnet::cpu
