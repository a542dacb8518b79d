// SPDX-License-Identifier: MIT
#include "core/gguf/gguf_writer.h"

#include "core/base/error.h"
#include "core/base/file.h"

namespace bitnet {
namespace {

constexpr std::uint32_t kVersion = 3;

template <typename Number>
void put(std::string& bytes, Number number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void put_string(std::string& bytes, std::string_view text) {
  put(bytes, std::uint64_t{text.size()});
  bytes += text;
}

std::uint64_t padding_after(std::uint64_t bytes) {
  return (kGgufAlignment - bytes % kGgufAlignment) % kGgufAlignment;
}

std::uint64_t bytes_of(const GgufTensorToWrite& tensor) {
  std::int64_t rows = 1;
  for (std::size_t i = 1; i < tensor.dims.size(); ++i) rows *= tensor.dims[i];
  return gguf_tensor_bytes(tensor.type, tensor.dims[0], rows);
}

}  // namespace

void GgufMetadata::begin(std::string_view key, GgufValueType type) {
  BITNET_CHECK(keys_.emplace(key).second, "metadata key '{}' is added twice", key);
  put_string(bytes_, key);
  put(bytes_, type);
}

void GgufMetadata::begin_array(std::string_view key, GgufValueType element, std::uint64_t count) {
  begin(key, GgufValueType::array);
  put(bytes_, element);
  put(bytes_, count);
}

void GgufMetadata::add_u32(std::string_view key, std::int64_t value) {
  BITNET_CHECK(value >= 0 && value <= UINT32_MAX, "metadata key '{}': {} is no u32", key, value);
  begin(key, GgufValueType::u32);
  put(bytes_, static_cast<std::uint32_t>(value));
}

void GgufMetadata::add_f32(std::string_view key, double value) {
  begin(key, GgufValueType::f32);
  put(bytes_, static_cast<float>(value));
}

void GgufMetadata::add_bool(std::string_view key, bool value) {
  begin(key, GgufValueType::boolean);
  put(bytes_, std::uint8_t{value});
}

void GgufMetadata::add_text(std::string_view key, std::string_view value) {
  begin(key, GgufValueType::string);
  put_string(bytes_, value);
}

void GgufMetadata::add_texts(std::string_view key, std::span<const std::string> values) {
  begin_array(key, GgufValueType::string, values.size());
  for (const std::string& value : values) put_string(bytes_, value);
}

void GgufMetadata::add_i32s(std::string_view key, std::span<const std::int32_t> values) {
  begin_array(key, GgufValueType::i32, values.size());
  for (const std::int32_t value : values) put(bytes_, value);
}

void GgufMetadata::add_f32s(std::string_view key, std::span<const float> values) {
  begin_array(key, GgufValueType::f32, values.size());
  for (const float value : values) put(bytes_, value);
}

std::uint64_t write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                         std::span<const GgufTensorToWrite> tensors) {
  std::string header = "GGUF";
  put(header, kVersion);
  put(header, std::uint64_t{tensors.size()});
  put(header, metadata.count());
  header += metadata.bytes();

  std::set<std::string_view> names;
  std::uint64_t offset = 0;
  for (const GgufTensorToWrite& tensor : tensors) {
    BITNET_CHECK(!tensor.name.empty() && tensor.name.size() <= kGgufMaxName,
                 "tensor name '{}' has {} bytes; GGUF takes 1 to {}", tensor.name,
                 tensor.name.size(), kGgufMaxName);
    BITNET_CHECK(names.insert(tensor.name).second, "two tensors named {}", tensor.name);
    BITNET_CHECK(!tensor.dims.empty() && tensor.dims.size() <= 4, "tensor {}: {} dimensions",
                 tensor.name, tensor.dims.size());
    put_string(header, tensor.name);
    put(header, static_cast<std::uint32_t>(tensor.dims.size()));
    for (const std::int64_t size : tensor.dims) put(header, static_cast<std::uint64_t>(size));
    put(header, tensor.type);
    put(header, offset);
    const std::uint64_t bytes = bytes_of(tensor);
    offset += bytes + padding_after(bytes);
  }
  header.append(padding_after(header.size()), '\0');

  OutputFile file(path);
  file.write(header);
  for (const GgufTensorToWrite& tensor : tensors) {
    const std::span<const std::uint8_t> bytes = tensor.fetch();
    BITNET_CHECK(bytes.size() == bytes_of(tensor), "tensor {}: {} bytes, expected {}", tensor.name,
                 bytes.size(), bytes_of(tensor));
    file.write(bytes);
    file.write(std::string(padding_after(bytes.size()), '\0'));
  }
  file.commit();
  return header.size() + offset;
}

}  // namespace bitnet
