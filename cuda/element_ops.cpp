// SPDX-License-Identifier: MIT
// Conversions, sum of two tensors, dropout, rotary positions.
#include "core/backend/attention_checks.h"
#include "core/backend/element_checks.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/dropout.h"
#include "cuda/elementwise.h"
#include "cuda/rope.h"

namespace bitnet::cuda {

void CudaBackend::convert(ConstTensorView x, TensorView y) {
  check_convert(x, y);
  const std::int64_t count = x.elements();
  if (count == 0) return;
  if (x.dtype() == DType::f32) {
    check(cuda::convert(Convert<float, __half>{data<float>(x), data<__half>(y), count}, stream_),
          "convert");
  } else if (x.dtype() == DType::f16) {
    check(cuda::convert(Convert<__half, float>{data<__half>(x), data<float>(y), count}, stream_),
          "convert");
  } else {
    check(
        cuda::convert(Convert<__nv_bfloat16, float>{data<__nv_bfloat16>(x), data<float>(y), count},
                      stream_),
        "convert");
  }
}

void CudaBackend::add(ConstTensorView a, ConstTensorView b, TensorView y) {
  check_same_size("add", {a, b, y});
  const Add op{a.as<float>().data(), b.as<float>().data(), y.as<float>().data(), a.elements()};
  if (op.count > 0) check(cuda::add(op, stream_), "add");
}

void CudaBackend::dropout(ConstTensorView x, double p, const RandomStream& stream,
                          std::uint64_t first, TensorView y) {
  const std::optional<std::uint32_t> last_dropped = check_dropout(x, p, first, y);
  if (!last_dropped) {
    if (x.raw() != y.raw()) copy(x, y);
    return;
  }
  const Dropout op{.x = x.as<float>().data(),
                   .y = y.as<float>().data(),
                   .count = x.elements(),
                   .seed = stream.seed,
                   .step = stream.step,
                   .purpose = static_cast<std::uint32_t>(stream.purpose),
                   .first_block = first / 4,
                   .last_dropped = *last_dropped,
                   .keep = static_cast<float>(1.0 - p)};
  if (op.count > 0) check(cuda::dropout(op, stream_), "dropout");
}

void CudaBackend::rope(TensorView x, ConstTensorView table, std::int64_t first_position,
                       RopeDirection direction) {
  check_rope(x, table, first_position);
  const std::int64_t tokens = x.dim(1);
  if (x.elements() == 0) return;
  const Rope op{.x = reals(x),
                .table = table.as<float>().data(),
                .first = position(first_position),
                .sign = direction == RopeDirection::forward ? 1.0f : -1.0f,
                .rows = static_cast<int>(x.dim(0) * tokens),
                .tokens = static_cast<int>(tokens),
                .heads = static_cast<int>(x.dim(2)),
                .head_dim = static_cast<int>(x.dim(3))};
  check(cuda::rope(op, stream_), "rope");
}

}  // namespace bitnet::cuda
