// SPDX-License-Identifier: MIT
// Embedding, gated activations, sum of two tensors, dropout.
#include <algorithm>

#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/stretches.h"

namespace bitnet::cpu {
namespace {

constexpr std::int64_t kColumnBlock = 64;  // columns of a task of embedding_backward

// tokens [rows], table [V, D], y [rows, D].
void check_embedding(ConstTensorView tokens, ConstTensorView table, ConstTensorView y) {
  BITNET_CHECK(table.shape().rank() == 2 && y.shape() == (Shape{tokens.elements(), table.dim(1)}),
               "embedding of {} tokens, table {}, rows {}: expected [V, D] and [rows, D]",
               tokens.elements(), table.shape().to_string(), y.shape().to_string());
  const auto ids = tokens.as<std::int32_t>();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    BITNET_CHECK(ids[i] >= 0 && ids[i] < table.dim(0), "token {} at position {} is not in [0, {})",
                 ids[i], i, table.dim(0));
  }
}

const ActivationKernels& kernels_of(const FloatKernels& table, Activation activation) {
  switch (activation) {
    case Activation::silu:
      return table.silu;
    case Activation::relu2:
      return table.relu2;
    case Activation::gelu:
      break;
  }
  return table.gelu;
}

void check_same_size(const char* operation, std::initializer_list<ConstTensorView> views) {
  const ConstTensorView first = *views.begin();
  for (const ConstTensorView& view : views) {
    BITNET_CHECK(view.elements() == first.elements(), "{} of {} and {}: expected equal sizes",
                 operation, first.shape().to_string(), view.shape().to_string());
  }
}

// Where an optional operand continues after `offset` elements.
template <typename T>
T* at(T* data, std::int64_t offset) {
  return data == nullptr ? nullptr : data + offset;
}

}  // namespace

void CpuBackend::embedding(ConstTensorView tokens, ConstTensorView table, TensorView y) {
  check_embedding(tokens, table, y);
  const std::int64_t width = table.dim(1);
  const std::int32_t* ids = tokens.as<std::int32_t>().data();
  const float* from = table.as<float>().data();
  float* to = y.as<float>().data();
  run_stretches(team_, tokens.elements(), rows_per_stretch(width),
                [&](std::int64_t first, std::int64_t count) {
                  for (std::int64_t row = first; row < first + count; ++row) {
                    std::copy_n(from + ids[row] * width, width, to + row * width);
                  }
                });
}

// A task owns a block of columns and takes the tokens in order.
void CpuBackend::embedding_backward(ConstTensorView tokens, ConstTensorView dy, TensorView dtable) {
  check_embedding(tokens, dtable, dy);
  const std::int64_t width = dtable.dim(1), rows = tokens.elements();
  const std::int32_t* ids = tokens.as<std::int32_t>().data();
  const float* from = dy.as<float>().data();
  float* to = dtable.as<float>().data();
  run_stretches(team_, width, kColumnBlock, [&](std::int64_t column, std::int64_t count) {
    for (std::int64_t row = 0; row < rows; ++row) {
      float* sum = to + ids[row] * width + column;
      float_->add(sum, from + row * width + column, sum, count);
    }
  });
}

void CpuBackend::gated_activation(Activation activation, ConstTensorView gate, ConstTensorView up,
                                  TensorView y) {
  check_same_size("gated_activation", {gate, up ? up : gate, y});
  const ActivationKernels& kernels = kernels_of(*float_, activation);
  const float *gates = gate.as<float>().data(), *ups = up.as<float>().data();
  float* to = y.as<float>().data();
  run_stretches(team_, gate.elements(), kStretch, [&](std::int64_t first, std::int64_t count) {
    kernels.forward(gates + first, at(ups, first), to + first, count);
  });
}

void CpuBackend::gated_activation_backward(Activation activation, ConstTensorView gate,
                                           ConstTensorView up, ConstTensorView dy, TensorView dgate,
                                           TensorView dup) {
  BITNET_CHECK(static_cast<bool>(up) == static_cast<bool>(dup),
               "gated_activation_backward needs both of up and dup, or none");
  check_same_size("gated_activation_backward",
                  {gate, up ? up : gate, dy, dgate, dup ? ConstTensorView(dup) : gate});
  const ActivationKernels& kernels = kernels_of(*float_, activation);
  const float *gates = gate.as<float>().data(), *ups = up.as<float>().data(),
              *from = dy.as<float>().data();
  float *gate_gradient = dgate.as<float>().data(), *up_gradient = dup.as<float>().data();
  run_stretches(team_, gate.elements(), kStretch, [&](std::int64_t first, std::int64_t count) {
    kernels.backward(gates + first, at(ups, first), from + first, gate_gradient + first,
                     at(up_gradient, first), count);
  });
}

void CpuBackend::add(ConstTensorView a, ConstTensorView b, TensorView y) {
  check_same_size("add", {a, b, y});
  const float *left = a.as<float>().data(), *right = b.as<float>().data();
  float* to = y.as<float>().data();
  run_stretches(team_, a.elements(), kStretch, [&](std::int64_t first, std::int64_t count) {
    float_->add(left + first, right + first, to + first, count);
  });
}

void CpuBackend::dropout(ConstTensorView x, double p, const RandomStream& stream,
                         std::uint64_t first, TensorView y) {
  check_same_size("dropout", {x, y});
  BITNET_CHECK(p >= 0 && p < 1, "dropout with probability {}, expected 0 <= p < 1", p);
  BITNET_CHECK(first % 4 == 0, "dropout from random index {}, expected a multiple of 4", first);
  const double threshold = p * 4294967296.0;  // 2^32
  const float keep = static_cast<float>(1.0 - p);
  const float* from = x.as<float>().data();
  float* to = y.as<float>().data();
  run_stretches(team_, x.elements(), kStretch, [&](std::int64_t start, std::int64_t count) {
    for (std::int64_t i = start; i < start + count; i += 4) {  // kStretch is a multiple of 4
      const auto words = stream.block(first / 4 + static_cast<std::uint64_t>(i) / 4);
      for (std::int64_t l = 0; l < std::min<std::int64_t>(4, start + count - i); ++l) {
        const bool kept = static_cast<double>(words[static_cast<std::size_t>(l)]) >= threshold;
        to[i + l] = kept ? from[i + l] / keep : 0.0f;
      }
    }
  });
}

}  // namespace bitnet::cpu
