// SPDX-License-Identifier: MIT
// The types of GGUF's tensors: their numbers, and how many bytes a row takes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace bitnet {

// Any number of the format may be held; these are the types that we compute with.
enum class GgufType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q8_0 = 8,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  i2_s = 36,  // of Microsoft's fork and of ik_llama.cpp; the main line has retired the number
  q1_0 = 41,
  q2_0 = 42,
};

// A row is cut into whole blocks. i2_s is no block type: its codes are followed by one scale.
struct GgufTypeInfo {
  GgufType type;
  const char* name;          // as --type takes it: "q2_0"
  std::int64_t block;        // elements
  std::int64_t block_bytes;  // of the codes alone, for i2_s
};

// Null for a number that no type has (or that we do not know).
const GgufTypeInfo* find_gguf_type(GgufType type);
std::optional<GgufType> parse_gguf_type(std::string_view name);
std::string to_string(GgufType type);  // "q2_0", "type 99"

// What a tensor's elements are to us.
enum class GgufElements : std::uint8_t {
  floats,   // f32, f16, bf16, q8_0
  trits,    // tq1_0, tq2_0, q2_0, i2_s: -1, 0, +1 and scales
  signs,    // q1_0: -1, +1 and scales
  foreign,  // a type that we do not decode
};
GgufElements elements_of(GgufType type);

// Whether rows of so many columns can be cut into the type's blocks.
bool gguf_type_holds(GgufType type, std::int64_t columns);
// "q2_0 (blocks of 64)" and the like: types for trits that hold such rows, for a message. Empty
// where there is none.
std::string gguf_types_that_hold(std::int64_t columns);

// Bytes of a tensor with its i2_s scale; without the padding that follows it in a file. columns *
// rows must fit in 63 bits and the type must hold the columns.
std::uint64_t gguf_tensor_bytes(GgufType type, std::int64_t columns, std::int64_t rows);
inline constexpr std::int64_t kI2sTailBytes = 32;  // the scale and its padding

}  // namespace bitnet
