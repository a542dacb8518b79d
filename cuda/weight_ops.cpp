// SPDX-License-Identifier: MIT
// Quantised weights: made, read back, mixed in, counted.
#include "core/backend/element_checks.h"
#include "core/backend/weight_checks.h"
#include "cuda/blend.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/magnitude_median.h"
#include "cuda/packed_codes.h"
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

}  // namespace

void CudaBackend::quantize_weights(const WeightQuantizer& q, ConstTensorView w, TensorView packed,
                                   TensorView weight_scale, TensorView flips) {
  const PackedShape shape = check_quantize_weights(q, w, packed, weight_scale, flips);
  check_indexable(w);
  const float* weights = w.as<float>().data();
  float* scales = weight_scale.as<float>().data();
  const std::int64_t elements = w.elements(), group_size = elements_of_scale(shape);
  const bool binary = q.kind == LinearKind::b1, median = q.measure == ScaleMeasure::absmedian;

  Workspace::Frame frame(workspace_);
  float* means = binary ? frame.get<float>(elements / group_size) : nullptr;
  if (median) {
    auto* counts = frame.get<std::uint32_t>(kMedianCounts);
    check(magnitude_median({weights, elements, group_size, scales, counts}, stream_),
          "quantising weights");
  }
  if (binary || !median) {
    auto* tile_sums = frame.get<double>(statistics_tiles(elements, group_size));
    check(
        weight_statistics(
            {weights, elements, group_size, median ? nullptr : scales, means, tile_sums}, stream_),
        "quantising weights");
  }
  const PackWeights pack{.w = weights,
                         .elements = elements,
                         .group_size = group_size,
                         .constants = binary ? means : scales,
                         .packed = packed.as<std::uint8_t>().data(),
                         .flips = flips.as<std::int32_t>().data()};
  check(pack_weights(binary ? WeightCode::binary : WeightCode::ternary, pack, stream_),
        "quantising weights");
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

CodeCounts CudaBackend::count_codes(ConstTensorView packed) {
  const std::uint8_t* bytes = packed.as<std::uint8_t>().data();
  Workspace::Frame frame(workspace_);
  auto* device_counts = frame.get<PackedCounts>(1);
  check(count_packed(bytes, packed.elements(), device_counts, stream_), "counting codes");
  PackedCounts counts{};
  check(cudaMemcpyAsync(&counts, device_counts, sizeof(counts), cudaMemcpyDeviceToHost, stream_),
        "counting codes");
  check(cudaStreamSynchronize(stream_), "counting codes");
  CodeCounts result;
  result.zero = static_cast<std::int64_t>(counts.zero);
  result.plus = static_cast<std::int64_t>(counts.plus);
  result.invalid = static_cast<std::int64_t>(counts.invalid);
  result.minus = 4 * packed.elements() - result.zero - result.plus - result.invalid;
  return result;
}

}  // namespace bitnet::cuda
