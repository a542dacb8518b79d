// SPDX-License-Identifier: MIT
// The contents of GGUF's tensors, block by block: codes and scales of the ternary and binary types,
// floats of the others. Layouts: docs/formats.md.
#pragma once

#include <cstdint>
#include <span>

#include "core/gguf/gguf_type.h"

namespace bitnet {

// Codes -1, 0, +1 of whole blocks -> bytes. q1_0 takes no 0: throws ContractError for a code that the
// type cannot hold. scales: one a block, rounded to fp16; none for i2_s, whose scale is not in its
// blocks.
void encode_codes(GgufType type, std::span<const std::int8_t> codes, std::span<const float> scales,
                  std::span<std::uint8_t> bytes);

// The reverse; returns the first element that is no trit (the 2-bit value 3), or -1. Scales are as
// stored: perhaps 0, negative or not finite. `scales` may be empty, and is so for i2_s.
std::int64_t decode_codes(GgufType type, std::span<const std::uint8_t> bytes,
                          std::span<std::int8_t> codes, std::span<float> scales);

// The scale of block `block`, without its codes; not for i2_s.
float block_scale(GgufType type, std::span<const std::uint8_t> bytes, std::int64_t block);

// i2_s: the last kI2sTailBytes bytes of a tensor.
float i2s_scale(std::span<const std::uint8_t> tensor);
void put_i2s_scale(std::span<std::uint8_t> tensor, float scale);

// f32, f16, bf16 and q8_0 are exact; elements that span whole blocks.
void decode_gguf_floats(GgufType type, std::span<const std::uint8_t> bytes, std::span<float> to);
// f32, f16, bf16, each value to the nearest.
void encode_gguf_floats(GgufType type, std::span<const float> values,
                        std::span<std::uint8_t> bytes);

}  // namespace bitnet
