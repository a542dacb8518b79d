// SPDX-License-Identifier: MIT
// What the operands of embedding and of operations on elements must be on every backend. All throw ContractError.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "core/tensor/tensor.h"

namespace bitnet {

void check_same_size(const char* operation, std::initializer_list<ConstTensorView> views);

// tokens [rows], table [V, D], y [rows, D].
void check_embedding(ConstTensorView tokens, ConstTensorView table, ConstTensorView y);

void check_convert(ConstTensorView x, ConstTensorView y);

void check_blend(ConstTensorView x, ConstTensorView quantized, ConstTensorView out);

// The random words below p * 2^32 are dropped: those up to the one returned, or none.
std::optional<std::uint32_t> check_dropout(ConstTensorView x, double p, std::uint64_t first,
                                           ConstTensorView y);

}  // namespace bitnet
