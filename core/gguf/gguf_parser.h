// SPDX-License-Identifier: MIT
// Reads and checks the structure of a GGUF file; not for other parts.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/gguf/gguf_file.h"

namespace bitnet {

// Bytes of a number; 0 for strings and arrays.
std::uint64_t gguf_value_bytes(GgufValueType type);

// Fills `metadata` and `tensors` from the bytes of a whole file. Throws FormatError. Every count is
// compared with the bytes that are left before anything is allocated for it.
void parse_gguf(std::span<const std::uint8_t> bytes, const std::string& name,
                std::map<std::string, GgufFile::Value, std::less<>>& metadata,
                std::vector<GgufFile::Tensor>& tensors);

}  // namespace bitnet
