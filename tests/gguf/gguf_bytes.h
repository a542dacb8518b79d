// SPDX-License-Identifier: MIT
// GGUF files put together by hand, right or wrong.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/gguf/gguf_file.h"

namespace bitnet::test {

template <typename Number>
std::string raw(Number number) {
  return {reinterpret_cast<const char*>(&number), sizeof number};
}
inline std::string raw_string(std::string_view text) {
  return raw(std::uint64_t{text.size()}) + std::string(text);
}

inline std::string key_of(std::string_view key, GgufValueType type, const std::string& value) {
  return raw_string(key) + raw(type) + value;
}
inline std::string array_of(std::string_view key, GgufValueType element, std::uint64_t count,
                            const std::string& values) {
  return key_of(key, GgufValueType::array, raw(element) + raw(count) + values);
}
inline std::string text_of(std::string_view key, std::string_view value) {
  return key_of(key, GgufValueType::string, raw_string(value));
}

inline std::string tensor_of(std::string_view name, std::initializer_list<std::uint64_t> dims,
                             std::uint32_t type, std::uint64_t offset) {
  std::string info = raw_string(name) + raw(static_cast<std::uint32_t>(dims.size()));
  for (const std::uint64_t dim : dims) info += raw(dim);
  return info + raw(type) + raw(offset);
}

struct GgufBytes {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::uint64_t tensors = 0, keys = 0;
  std::string entries;  // keys, then tensors

  GgufBytes& key(const std::string& entry) {
    ++keys;
    entries += entry;
    return *this;
  }
  GgufBytes& tensor(const std::string& entry) {
    ++tensors;
    entries += entry;
    return *this;
  }
  // With `data` at the next multiple of the alignment.
  std::string file(const std::string& data = "", std::size_t alignment = 32) const {
    std::string bytes = magic + raw(version) + raw(tensors) + raw(keys) + entries;
    if (!data.empty()) bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
    return bytes + data;
  }
};

inline std::span<const std::uint8_t> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

}  // namespace bitnet::test
