// SPDX-License-Identifier: MIT
// The GGUF container, versions 2 and 3: metadata, and tensors of some type. docs/formats.md gives
// the grammar.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"
#include "core/gguf/gguf_type.h"

namespace bitnet {

// The format's numbers.
enum class GgufValueType : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

inline constexpr std::size_t kGgufMaxName = 63;      // bytes of a tensor's name
inline constexpr std::uint64_t kGgufAlignment = 32;  // unless general.alignment says otherwise

// A file checked whole on opening: every rule of the container holds for an object of this class.
// Values and tensors point into the bytes and live as long as the object. A tensor's type may be one
// that we cannot decode.
class GgufFile {
 public:
  struct Value {
    GgufValueType type = GgufValueType::u8;
    GgufValueType element = GgufValueType::u8;  // of an array
    std::uint64_t count = 1;                    // of an array
    std::uint64_t offset = 0;                   // of `bytes` in the file
    std::span<const std::uint8_t> bytes;        // strings: u64 length and text, each
  };
  struct Tensor {
    std::string name;
    GgufType type = GgufType::f32;
    std::vector<std::int64_t> dims;  // fastest first: [columns, rows, …]
    std::uint64_t offset = 0;        // of `bytes` in the file
    std::span<const std::uint8_t> bytes;

    std::int64_t columns() const { return dims[0]; }
    std::int64_t rows() const;  // of all further dimensions
  };

  // Throws Error when the file cannot be read, FormatError when it breaks a rule.
  explicit GgufFile(const std::filesystem::path& path);
  // Of bytes that outlive the object; `name` stands for the path in messages.
  GgufFile(std::span<const std::uint8_t> bytes, std::string name);
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& name() const { return name_; }
  std::uint64_t file_bytes() const { return bytes_.size(); }
  std::span<const Tensor> tensors() const { return tensors_; }  // as the file lists them
  const Tensor* find(std::string_view name) const;              // nullptr when there is none
  const std::map<std::string, Value, std::less<>>& metadata() const { return metadata_; }
  bool has(std::string_view key) const { return metadata_.contains(key); }

  // Values of metadata. Integers may be of any width and numbers of either; throws FormatError naming
  // the key, what it holds and what was expected, also for one that is missing.
  std::int64_t integer(std::string_view key, std::int64_t min, std::int64_t max) const;
  double number(std::string_view key) const;
  std::string text(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::vector<std::string_view> texts(std::string_view key) const;  // an array of strings
  std::vector<std::int64_t> integers(std::string_view key) const;   // an array of integers
  std::vector<float> numbers(std::string_view key) const;           // an array of f32, all finite

  // FormatErrors at a value (at the file's start where the key is missing) or at a tensor.
  [[noreturn]] void refuse(std::string_view key, const std::string& reason) const;
  [[noreturn]] void refuse(const Tensor& tensor, const std::string& reason,
                           std::uint64_t byte = 0) const;

 private:
  const Value& value(std::string_view key, const std::string& expected) const;
  [[noreturn]] void refuse_value(std::string_view key, const Value& value,
                                 const std::string& expected) const;

  std::optional<MappedFile> file_;
  std::string name_;
  std::span<const std::uint8_t> bytes_;
  std::map<std::string, Value, std::less<>> metadata_;
  std::vector<Tensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

// Whether a file can be read and begins as one of these does.
bool begins_as_gguf(const std::filesystem::path& file);

// "5 (u32)", "an array of 3 string values": what a value is, for messages.
std::string describe(const GgufFile::Value& value);

}  // namespace bitnet
