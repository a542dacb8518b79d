// SPDX-License-Identifier: MIT
// The safetensors format: u64 N | N bytes of JSON | tensors. docs/checkpoint_format.md gives the
// grammar.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"
#include "core/base/half.h"

namespace bitnet {

// A file mapped into memory and checked whole on opening: every rule of the format holds for an
// object of this class. Nothing is copied; entries point into the mapping and live as long as the
// object. Tensor bytes may be misaligned.
class SafetensorsFile {
 public:
  struct Entry {
    std::string name;
    std::string dtype;  // the format's name: "F32", "BF16", "U8", …
    std::vector<std::int64_t> shape;
    std::span<const std::uint8_t> bytes;
    std::uint64_t offset = 0;  // of `bytes` in the file

    std::int64_t elements() const;
    // decode_floats() reads it.
    bool is_float() const { return dtype == "F32" || dtype == "BF16" || dtype == "F16"; }
  };

  // Throws Error when the file cannot be read, FormatError when it breaks a rule.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  std::uint64_t file_bytes() const { return file_.bytes().size(); }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::span<const Entry> entries() const { return entries_; }  // in the order of their bytes
  const Entry* find(std::string_view name) const;              // nullptr when there is none
  void expect_whole_read() const { file_.expect_whole_read(); }

 private:
  MappedFile file_;
  std::map<std::string, std::string> metadata_;
  std::vector<Entry> entries_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

// Elements [first, first + out.size()) of an F32, BF16 or F16 entry as floats (exact).
void decode_floats(const SafetensorsFile::Entry& entry, std::int64_t first, std::span<float> out);

// "[4, 256]"
std::string shape_text(std::span<const std::int64_t> shape);

struct TensorToWrite {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  const void* bytes = nullptr;  // little-endian, C order
  // Instead of `bytes`: called once, when the tensor's turn comes; what it returns must live until
  // the next tensor's turn.
  std::function<const void*()> fetch = {};
};

// Writes by way of OutputFile: the old file, if any, stays until the new one is complete on the
// disk. Tensors of whole cache lines (64 bytes) come first and begin at one; the others are aligned
// to their element. Both are sorted by width of the dtype (widest first) and name, so the same
// content is always the same bytes. "format": "pt" is added to the metadata, without which Hugging
// Face's loaders refuse a file.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace bitnet
