// SPDX-License-Identifier: MIT
// Quantised weights: made, read back, mixed in, counted.
#include "core/backend/element_checks.h"
#include "core/backend/weight_checks.h"
#include "cuda/blend.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/magnitude_median.h"
#include "cuda/packed_codes.h"
#include "cuda/tensor_batch.h"
#include "cuda/weight_statistics.h"

namespace bitnet::cuda {
namespace {

constexpr std::int64_t kMostWeights = std::int64_t{1} << 32;  // kernels index them by 32 bits

void check_indexable(ConstTensorView w) {
  BITNET_CHECK(w.elements() < kMostWeights, "{} weights in one matrix, expected fewer than 2^32",
               w.elements());
}

// Neighbouring elements that share a scale.
std::int64_t elements_of_scale(const PackedShape& shape) {
  return shape.single_scale ? shape.outputs * shape.inputs : shape.group_size;
}

constexpr const char* kQuantizing = "quantising weights";

void quantize_batch(const WeightQuantizer& q, std::span<const WeightQuantization> matrices,
                    Workspace& workspace, cudaStream_t stream) {
  const bool binary = q.kind == LinearKind::b1, median = q.measure == ScaleMeasure::absmedian;
  Workspace::Frame frame(workspace);
  auto* const median_counts = median ? frame.get<std::uint32_t>(kMedianCounts) : nullptr;
  TensorBatch<PackWeights> packs;
  TensorBatch<WholeStatistic> scales_of_all, means_of_all;
  std::int64_t tiles = 0;  // of the matrices with one scale
  for (const WeightQuantization& matrix : matrices) {
    const PackedShape shape =
        check_quantize_weights(q, matrix.w, matrix.packed, matrix.weight_scale, matrix.flips);
    check_indexable(matrix.w);
    const TensorToSum weights{matrix.w.as<float>().data(), matrix.w.elements()};
    const std::int64_t group_size = elements_of_scale(shape);
    const bool grouped = group_size < weights.elements;
    float* const scales = matrix.weight_scale.as<float>().data();
    float* const means = binary ? frame.get<float>(weights.elements / group_size) : nullptr;
    const auto of_groups = [&](WeightStatistic which, float* results) {
      const GroupStatistics op{weights.x, weights.elements, group_size, results};
      check(group_statistics(which, op, stream), kQuantizing);
    };
    if (!grouped) tiles += sum_tiles_in(weights.elements);
    if (median) {
      check(magnitude_median({weights.x, weights.elements, group_size, scales, median_counts},
                             stream),
            kQuantizing);
    } else if (grouped) {
      of_groups(WeightStatistic::scale, scales);
    } else {
      scales_of_all.push_back({weights, scales});
    }
    if (binary && grouped) of_groups(WeightStatistic::mean, means);
    if (binary && !grouped) means_of_all.push_back({weights, means});
    packs.push_back({.w = weights.x,
                     .elements = weights.elements,
                     .group_size = group_size,
                     .constants = binary ? means : scales,
                     .packed = matrix.packed.as<std::uint8_t>().data(),
                     .flips = matrix.flips.as<std::int32_t>().data()});
  }
  auto* const tile_sums = frame.get<double>(tiles);
  check(whole_statistics(WeightStatistic::scale, scales_of_all.all(), tile_sums, stream),
        kQuantizing);
  check(whole_statistics(WeightStatistic::mean, means_of_all.all(), tile_sums, stream),
        kQuantizing);
  check(pack_weights(binary ? WeightCode::binary : WeightCode::ternary, packs.all(), stream),
        kQuantizing);
}

}  // namespace

void CudaBackend::quantize_weights(const WeightQuantizer& q,
                                   std::span<const WeightQuantization> matrices) {
  for_each_batch(matrices, [&](std::span<const WeightQuantization> batch) {
    quantize_batch(q, batch, workspace_, stream_);
  });
}

void CudaBackend::dequantize_weights(ConstTensorView packed, ConstTensorView weight_scale,
                                     TensorView w) {
  const PackedShape shape = check_weights(w, packed, weight_scale);
  check_indexable(w);
  const UnpackWeights unpack{.packed = packed.as<std::uint8_t>().data(),
                             .scales = weight_scale.as<float>().data(),
                             .elements = w.elements(),
                             .group_size = elements_of_scale(shape),
                             .w = w.as<float>().data()};
  check(unpack_weights(unpack, stream_), "dequantising weights");
}

void CudaBackend::blend(ConstTensorView x, ConstTensorView quantized, float amount,
                        TensorView out) {
  check_blend(x, quantized, out);
  const Blend op{.x = x.as<float>().data(),
                 .quantized = quantized.as<float>().data(),
                 .amount = amount,
                 .out = out.as<float>().data(),
                 .count = x.elements()};
  if (op.count > 0) check(cuda::blend(op, stream_), "blend");
}

void CudaBackend::count_codes(std::span<const ConstTensorView> packed,
                              std::span<CodeCounts> counts) {
  check_count_codes(packed, counts);
  for (std::size_t first = 0; first < packed.size(); first += kBatchedTensors) {
    const std::size_t count = std::min(packed.size() - first, kBatchedTensors);
    Workspace::Frame frame(workspace_);
    auto* const on_device = frame.get<PackedCounts>(static_cast<std::int64_t>(count));
    for (std::size_t i = 0; i < count; ++i) {
      const ConstTensorView matrix = packed[first + i];
      check(
          count_packed(matrix.as<std::uint8_t>().data(), matrix.elements(), on_device + i, stream_),
          "counting codes");
    }
    std::array<PackedCounts, kBatchedTensors> found{};
    check(cudaMemcpyAsync(found.data(), on_device, count * sizeof(PackedCounts),
                          cudaMemcpyDeviceToHost, stream_),
          "counting codes");
    check(cudaStreamSynchronize(stream_), "counting codes");
    for (std::size_t i = 0; i < count; ++i) {
      CodeCounts& c = counts[first + i];
      c.zero = static_cast<std::int64_t>(found[i].zero);
      c.plus = static_cast<std::int64_t>(found[i].plus);
      c.invalid = static_cast<std::int64_t>(found[i].invalid);
      c.minus = 4 * packed[first + i].elements() - c.zero - c.plus - c.invalid;
    }
  }
}

}  // namespace bitnet::cuda
