// SPDX-License-Identifier: MIT
// Embedding, sum of two tensors, dropout.
#include <algorithm>

#include "core/backend/element_checks.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/stretches.h"

namespace bitnet::cpu {
namespace {

constexpr std::int64_t kColumnBlock = 64;  // columns of a task of embedding_backward

void check_tokens(ConstTensorView tokens, ConstTensorView table) {
  const auto ids = tokens.as<std::int32_t>();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    BITNET_CHECK(ids[i] >= 0 && ids[i] < table.dim(0), "token {} at position {} is not in [0, {})",
                 ids[i], i, table.dim(0));
  }
}

}  // namespace

void CpuBackend::embedding(ConstTensorView tokens, ConstTensorView table, TensorView y) {
  check_embedding(tokens, table, y);
  const std::int64_t width = table.dim(1);
  const std::int32_t* ids = tokens.as<std::int32_t>().data();
  const bool widen = table.dtype() == DType::bf16;
  const float* floats = widen ? nullptr : table.as<float>().data();
  const auto* halves = reinterpret_cast<const std::uint16_t*>(table.raw());
  float* to = y.as<float>().data();
  issue([=, this](std::int64_t) {
    check_tokens(tokens, table);
    run_stretches(issued_team_, tokens.elements(), rows_per_stretch(width),
                  [&](std::int64_t first, std::int64_t count) {
                    for (std::int64_t row = first; row < first + count; ++row) {
                      if (widen) {
                        widen_bf16(halves + ids[row] * width, width, to + row * width);
                      } else {
                        std::copy_n(floats + ids[row] * width, width, to + row * width);
                      }
                    }
                  });
  });
}

// A task owns a block of columns and takes the tokens in order.
void CpuBackend::embedding_backward(ConstTensorView tokens, ConstTensorView dy, TensorView dtable) {
  check_embedding(tokens, dtable, dy);
  check_tokens(tokens, dtable);
  const std::int64_t width = dtable.dim(1), rows = tokens.elements();
  const std::int32_t* ids = tokens.as<std::int32_t>().data();
  const float* from = dy.as<float>().data();
  float* to = dtable.as<float>().data();
  run_stretches(team(), width, kColumnBlock, [&](std::int64_t column, std::int64_t count) {
    for (std::int64_t row = 0; row < rows; ++row) {
      float* sum = to + ids[row] * width + column;
      float_->add(sum, from + row * width + column, sum, count);
    }
  });
}

void CpuBackend::add(ConstTensorView a, ConstTensorView b, TensorView y) {
  check_same_size("add", {a, b, y});
  const float *left = a.as<float>().data(), *right = b.as<float>().data();
  float* to = y.as<float>().data();
  issue([=, this, size = a.elements()](std::int64_t) {
    run_stretches(issued_team_, size, kStretch, [&](std::int64_t first, std::int64_t count) {
      float_->add(left + first, right + first, to + first, count);
    });
  });
}

void CpuBackend::dropout(ConstTensorView x, double p, const RandomStream& stream,
                         std::uint64_t first, TensorView y) {
  const std::optional<std::uint32_t> last_dropped = check_dropout(x, p, first, y);
  if (!last_dropped) {
    if (x.raw() != y.raw()) copy(x, y);
    return;
  }
  DropoutRule rule = {.keys = {},
                      .step = stream.step,
                      .purpose = static_cast<std::uint32_t>(stream.purpose),
                      .last_dropped = *last_dropped,
                      .keep = static_cast<float>(1.0 - p)};
  fill_philox_keys(stream.seed, rule.keys);
  const float* from = x.as<float>().data();
  float* to = y.as<float>().data();
  run_stretches(team(), x.elements(), kStretch, [&](std::int64_t i, std::int64_t count) {
    float_->dropout(rule, (first + static_cast<std::uint64_t>(i)) / 4, from + i, to + i, count);
  });
}

}  // namespace bitnet::cpu
