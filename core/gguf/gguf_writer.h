// SPDX-License-Identifier: MIT
// Writing a GGUF file, version 3, tensor by tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/gguf/gguf_file.h"

namespace bitnet {

// Keys and values in the order in which they are added; each key once.
class GgufMetadata {
 public:
  void add_u32(std::string_view key, std::int64_t value);
  void add_f32(std::string_view key, double value);
  void add_bool(std::string_view key, bool value);
  void add_text(std::string_view key, std::string_view value);
  void add_texts(std::string_view key, std::span<const std::string> values);
  void add_i32s(std::string_view key, std::span<const std::int32_t> values);
  void add_f32s(std::string_view key, std::span<const float> values);

  std::uint64_t count() const { return keys_.size(); }
  const std::string& bytes() const { return bytes_; }

 private:
  void begin(std::string_view key, GgufValueType type);
  void begin_array(std::string_view key, GgufValueType element, std::uint64_t count);

  std::set<std::string, std::less<>> keys_;
  std::string bytes_;
};

struct GgufTensorToWrite {
  std::string name;
  GgufType type = GgufType::f32;
  std::vector<std::int64_t> dims;  // fastest first: [columns, rows]
  // Called once, when the tensor's turn comes; what it returns must live until the next tensor's
  // turn.
  std::function<std::span<const std::uint8_t>()> fetch;
};

// Writes by way of OutputFile: the old file, if any, stays until the new one is complete on the
// disk. The same content is always the same bytes. Returns the file's size.
std::uint64_t write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                         std::span<const GgufTensorToWrite> tensors);

}  // namespace bitnet
