// SPDX-License-Identifier: MIT
#include "core/gguf/gguf_file.h"

#include <array>
#include <cmath>
#include <cstring>
#include <fstream>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/gguf/gguf_parser.h"

namespace bitnet {
namespace {

using Value = GgufFile::Value;

template <typename Number>
Number number_at(const std::uint8_t* bytes) {
  Number number;
  std::memcpy(&number, bytes, sizeof number);
  return number;
}

// Nothing where the type is no integer, or the integer is above 2^63 - 1.
std::optional<std::int64_t> integer_at(GgufValueType type, const std::uint8_t* bytes) {
  switch (type) {
    case GgufValueType::u8:
      return number_at<std::uint8_t>(bytes);
    case GgufValueType::i8:
      return number_at<std::int8_t>(bytes);
    case GgufValueType::u16:
      return number_at<std::uint16_t>(bytes);
    case GgufValueType::i16:
      return number_at<std::int16_t>(bytes);
    case GgufValueType::u32:
      return number_at<std::uint32_t>(bytes);
    case GgufValueType::i32:
      return number_at<std::int32_t>(bytes);
    case GgufValueType::i64:
      return number_at<std::int64_t>(bytes);
    case GgufValueType::u64: {
      const auto wide = number_at<std::uint64_t>(bytes);
      if (wide <= INT64_MAX) return static_cast<std::int64_t>(wide);
      return std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

std::string_view string_at(const std::uint8_t* bytes) {
  return {reinterpret_cast<const char*>(bytes) + 8,
          static_cast<std::size_t>(number_at<std::uint64_t>(bytes))};
}

const char* name_of(GgufValueType type) {
  static constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                           "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<std::size_t>(type)];
}

}  // namespace

bool begins_as_gguf(const std::filesystem::path& file) {
  std::array<char, 4> magic{};
  std::ifstream(file, std::ios::binary).read(magic.data(), magic.size());
  return std::string_view(magic.data(), magic.size()) == "GGUF";
}

std::string describe(const Value& value) {
  if (value.type == GgufValueType::array)
    return fmt::format("an array of {} {} values", value.count, name_of(value.element));
  const std::uint8_t* const bytes = value.bytes.data();
  switch (value.type) {
    case GgufValueType::string:
      return "the string " + printable(string_at(bytes));
    case GgufValueType::boolean:
      return *bytes != 0 ? "true" : "false";
    case GgufValueType::f32:
      return fmt::format("{} (f32)", number_at<float>(bytes));
    case GgufValueType::f64:
      return fmt::format("{} (f64)", number_at<double>(bytes));
    case GgufValueType::u64:
      return fmt::format("{} (u64)", number_at<std::uint64_t>(bytes));
    default:
      return fmt::format("{} ({})", *integer_at(value.type, bytes), name_of(value.type));
  }
}

std::int64_t GgufFile::Tensor::rows() const {
  std::int64_t product = 1;
  for (std::size_t i = 1; i < dims.size(); ++i) product *= dims[i];
  return product;
}

GgufFile::GgufFile(const std::filesystem::path& path)
    : file_(path), name_(path.string()), bytes_(file_->bytes()) {
  parse_gguf(bytes_, name_, metadata_, tensors_);
  for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

GgufFile::GgufFile(std::span<const std::uint8_t> bytes, std::string name)
    : name_(std::move(name)), bytes_(bytes) {
  parse_gguf(bytes_, name_, metadata_, tensors_);
  for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

const GgufFile::Tensor* GgufFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const Value& GgufFile::value(std::string_view key, const std::string& expected) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) refuse(key, fmt::format("is missing; expected {}", expected));
  return found->second;
}

void GgufFile::refuse_value(std::string_view key, const Value& value,
                            const std::string& expected) const {
  refuse(key, fmt::format("is {}, expected {}", describe(value), expected));
}

std::int64_t GgufFile::integer(std::string_view key, std::int64_t min, std::int64_t max) const {
  const std::string expected = fmt::format("an integer from {} to {}", min, max);
  const Value& found = value(key, expected);
  const bool single = found.type != GgufValueType::array && found.type != GgufValueType::string;
  const auto number = single ? integer_at(found.type, found.bytes.data()) : std::nullopt;
  if (!number || *number < min || *number > max) refuse_value(key, found, expected);
  return *number;
}

double GgufFile::number(std::string_view key) const {
  const std::string expected = "a number (f32)";
  const Value& found = value(key, expected);
  double number = NAN;
  if (found.type == GgufValueType::f32) number = number_at<float>(found.bytes.data());
  if (found.type == GgufValueType::f64) number = number_at<double>(found.bytes.data());
  if (!std::isfinite(number)) refuse_value(key, found, expected);
  return number;
}

std::string GgufFile::text(std::string_view key) const {
  const Value& found = value(key, "a string");
  if (found.type != GgufValueType::string) refuse_value(key, found, "a string");
  return std::string(string_at(found.bytes.data()));
}

bool GgufFile::boolean(std::string_view key) const {
  const Value& found = value(key, "true or false");
  if (found.type != GgufValueType::boolean) refuse_value(key, found, "true or false");
  return found.bytes[0] != 0;
}

std::vector<std::string_view> GgufFile::texts(std::string_view key) const {
  const Value& found = value(key, "an array of strings");
  if (found.type != GgufValueType::array || found.element != GgufValueType::string)
    refuse_value(key, found, "an array of strings");
  std::vector<std::string_view> list;
  list.reserve(static_cast<std::size_t>(found.count));
  const std::uint8_t* bytes = found.bytes.data();
  for (std::uint64_t i = 0; i < found.count; ++i) {
    list.push_back(string_at(bytes));
    bytes += 8 + list.back().size();
  }
  return list;
}

std::vector<std::int64_t> GgufFile::integers(std::string_view key) const {
  const Value& found = value(key, "an array of integers");
  std::vector<std::int64_t> list;
  if (found.type != GgufValueType::array) refuse_value(key, found, "an array of integers");
  const std::uint64_t width = gguf_value_bytes(found.element);
  list.reserve(static_cast<std::size_t>(found.count));
  for (std::uint64_t i = 0; i < found.count; ++i) {
    const auto number = integer_at(found.element, found.bytes.data() + i * width);
    if (!number) refuse_value(key, found, "an array of integers");
    list.push_back(*number);
  }
  return list;
}

std::vector<float> GgufFile::numbers(std::string_view key) const {
  const std::string expected = "an array of finite numbers (f32)";
  const Value& found = value(key, expected);
  if (found.type != GgufValueType::array || found.element != GgufValueType::f32)
    refuse_value(key, found, expected);
  std::vector<float> list;
  list.reserve(static_cast<std::size_t>(found.count));
  for (std::uint64_t i = 0; i < found.count; ++i) {
    list.push_back(number_at<float>(found.bytes.data() + i * sizeof(float)));
    if (!std::isfinite(list.back()))
      refuse(key, fmt::format("has {} at index {}, expected a finite number", list.back(), i));
  }
  return list;
}

void GgufFile::refuse(std::string_view key, const std::string& reason) const {
  const auto found = metadata_.find(key);
  throw FormatError(name_, found == metadata_.end() ? 0 : found->second.offset,
                    fmt::format("metadata key '{}' {}", key, reason));
}

void GgufFile::refuse(const Tensor& tensor, const std::string& reason, std::uint64_t byte) const {
  throw FormatError(name_, tensor.offset + byte,
                    fmt::format("tensor {}: {}", printable(tensor.name), reason));
}

}  // namespace bitnet
