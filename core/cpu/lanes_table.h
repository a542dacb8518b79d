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
      .norm_quantize = norm_quantize,
      .norm_backward = norm_backward,
      .rope = rope,
      .attention_block = attention_block,
      .attention_token = attention_token,
      .interleave_keys = interleave_keys,
      .attention_backward = attention_backward,
      .silu = activation_kernels<Silu>(),
      .relu2 = activation_kernels<Relu2>(),
      .gelu = activation_kernels<Gelu>(),
      .add = add,
      .dropout = dropout,
      .cross_entropy = cross_entropy,
      .adamw = adamw,
      .sum = sum,
      .sum_of_squares = sum_of_squares,
      .widen = widen,
      .narrow = narrow,
      .exp = exp_row,
  };
}

}  // namespace
}  // namespace bitnet::cpu
