// SPDX-License-Identifier: MIT
// The table of this file's kernels; included last by each float_<isa>.cpp.
#pragma once

#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

constexpr FloatKernels make_table(const char* name) {
  return {
      .name = name,
      .linear = linear,
      .norm = norm,
      .norm_backward = norm_backward,
      .rope = rope,
      .attention = attention,
      .attention_backward = attention_backward,
      .silu = {activation_forward<Silu>, activation_backward<Silu>},
      .relu2 = {activation_forward<Relu2>, activation_backward<Relu2>},
      .gelu = {activation_forward<Gelu>, activation_backward<Gelu>},
      .add = add,
      .cross_entropy = cross_entropy,
      .adamw = adamw,
      .sum = sum,
      .sum_of_squares = sum_of_squares,
      .exp = exp_row,
  };
}

}  // namespace
}  // namespace bitnet::cpu
