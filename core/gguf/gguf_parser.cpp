// SPDX-License-Identifier: MIT
#include "core/gguf/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>
#include <string_view>

#include "core/base/config_io.h"
#include "core/base/error.h"

namespace bitnet {
namespace {

using Value = GgufFile::Value;
using Tensor = GgufFile::Tensor;

// Ours: far above what any model has, and small enough for the memory that an entry takes.
constexpr std::uint64_t kMaxTensors = std::uint64_t{1} << 18, kMaxKeys = std::uint64_t{1} << 16;
constexpr std::uint64_t kMaxKeyBytes = 65535;
constexpr std::uint32_t kMaxDims = 4;
// The least that an entry takes: a name's length, a type and one byte; a name's length, the number of
// dimensions, one of them, a type and an offset.
constexpr std::uint64_t kLeastKeyBytes = 8 + 4 + 1, kLeastTensorBytes = 8 + 4 + 8 + 4 + 8;
constexpr std::uint64_t kLargestAlignment = std::uint64_t{1} << 20;

// Blocks of PrismML's files of the same type number: 128 elements and 2 bytes of scale.
constexpr std::int64_t kForeignQ2Block = 128, kForeignQ2Bytes = 34;

std::uint64_t aligned(std::uint64_t offset, std::uint64_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

class Parser {
 public:
  Parser(std::span<const std::uint8_t> file, const std::string& name) : file_(file), name_(name) {}

  void parse(std::map<std::string, Value, std::less<>>& metadata, std::vector<Tensor>& tensors) {
    read_version();
    const auto tensor_count = read<std::uint64_t>("the number of tensors");
    const auto key_count = read<std::uint64_t>("the number of metadata keys");
    check_count(key_count, kMaxKeys, kLeastKeyBytes, "metadata keys");
    check_count(tensor_count, kMaxTensors, kLeastTensorBytes, "tensors");
    for (std::uint64_t i = 0; i < key_count; ++i) read_key(metadata);
    const std::uint64_t alignment = read_alignment(metadata);

    std::set<std::string_view> names;
    tensors.reserve(static_cast<std::size_t>(tensor_count));
    for (std::uint64_t i = 0; i < tensor_count; ++i) {
      tensors.push_back(read_tensor(alignment));
      if (!names.insert(tensors.back().name).second)
        refuse_tensor(tensors.back(), "another tensor has the same name");
    }
    place_tensors(tensors, alignment);
  }

 private:
  void read_version() {
    if (file_.size() < 4 || std::memcmp(file_.data(), "GGUF", 4) != 0)
      refuse(0, "the file does not begin with 'GGUF'; this is not a GGUF file");
    position_ = 4;
    const auto version = read<std::uint32_t>("the version");
    if (version == 2 || version == 3) return;
    const bool swapped = version == 2u << 24 || version == 3u << 24;
    refuse(4, swapped ? std::string("a big-endian file; this program reads little-endian ones")
                      : fmt::format("version {}, expected 2 or 3", version));
  }

  void read_key(std::map<std::string, Value, std::less<>>& metadata) {
    const std::uint64_t start = position_;
    const std::string_view key = read_string("a metadata key");
    if (key.empty() || key.size() > kMaxKeyBytes)
      refuse(start,
             fmt::format("a metadata key of {} bytes, expected 1 to {}", key.size(), kMaxKeyBytes));
    key_ = key;
    Value value;
    value.type = read_type(true);
    if (value.type == GgufValueType::array) {
      value.element = read_type(false);
      value.count = read<std::uint64_t>("the length of an array");
    }
    const GgufValueType stored = value.type == GgufValueType::array ? value.element : value.type;
    value.offset = position_;
    skip_values(stored, value.count);
    value.bytes = file_.subspan(value.offset, position_ - value.offset);
    if (stored == GgufValueType::boolean) check_booleans(value);
    if (!metadata.emplace(key, value).second)
      refuse(start, fmt::format("metadata key {} occurs twice", printable(key)));
  }

  GgufValueType read_type(bool array_allowed) {
    const std::uint64_t start = position_;
    const auto number = read<std::uint32_t>("a value's type");
    const bool known =
        number <= static_cast<std::uint32_t>(GgufValueType::f64) &&
        (array_allowed || number != static_cast<std::uint32_t>(GgufValueType::array));
    if (!known)
      refuse(start,
             fmt::format("metadata key {}: value type {}, expected {}", printable(key_), number,
                         array_allowed ? "0 to 12"
                                       : "one of a number or string (0 to 12, "
                                         "without 9: no arrays of arrays)"));
    return static_cast<GgufValueType>(number);
  }

  void skip_values(GgufValueType type, std::uint64_t count) {
    const std::uint64_t width = gguf_value_bytes(type);
    const std::uint64_t least = width == 0 ? 8 : width;  // a string has its length
    if (count > left() / least)
      refuse(position_,
             fmt::format("metadata key {}: {} values, but only {} bytes follow; the file "
                         "is truncated or damaged",
                         printable(key_), count, left()));
    if (width != 0) {
      position_ += count * width;
      return;
    }
    for (std::uint64_t i = 0; i < count; ++i) read_string("a string");
  }

  void check_booleans(const Value& value) {
    for (std::size_t i = 0; i < value.bytes.size(); ++i) {
      if (value.bytes[i] > 1)
        refuse(value.offset + i, fmt::format("metadata key {}: a boolean of {}, expected 0 or 1",
                                             printable(key_), value.bytes[i]));
    }
  }

  std::uint64_t read_alignment(const std::map<std::string, Value, std::less<>>& metadata) {
    const auto found = metadata.find("general.alignment");
    if (found == metadata.end()) return kGgufAlignment;
    const Value& value = found->second;
    if (value.type != GgufValueType::u32)
      refuse(value.offset, fmt::format("general.alignment is {}, expected u32", describe(value)));
    std::uint32_t alignment = 0;
    std::memcpy(&alignment, value.bytes.data(), sizeof alignment);
    if (!std::has_single_bit(alignment) || alignment > kLargestAlignment)
      refuse(value.offset, fmt::format("general.alignment is {}, expected a power of two up to {}",
                                       alignment, kLargestAlignment));
    return alignment;
  }

  // Its bytes are known when all are: `offset` counts from the start of the data until then.
  Tensor read_tensor(std::uint64_t alignment) {
    Tensor tensor;
    const std::uint64_t start = position_;
    tensor.name = read_string("a tensor's name");
    if (tensor.name.empty() || tensor.name.size() > kGgufMaxName)
      refuse(start, fmt::format("a tensor's name has {} bytes, expected 1 to {}",
                                tensor.name.size(), kGgufMaxName));
    const auto rank = read<std::uint32_t>("the number of dimensions");
    if (rank == 0 || rank > kMaxDims)
      refuse_tensor(tensor, fmt::format("{} dimensions, expected 1 to {}", rank, kMaxDims));
    std::uint64_t elements = 1;
    for (std::uint32_t i = 0; i < rank; ++i) {
      const auto size = read<std::uint64_t>("a dimension");
      // Bytes are at most 8 an element (and an i2_s tail), so 2^58 elements fit in 63 bits.
      if (size == 0 || size > INT64_MAX || __builtin_mul_overflow(elements, size, &elements) ||
          elements > std::uint64_t{1} << 58)
        refuse_tensor(tensor,
                      fmt::format("dimension {} is {}, expected at least 1 and at most 2^58 "
                                  "elements in all",
                                  i, size));
      tensor.dims.push_back(static_cast<std::int64_t>(size));
    }
    tensor.type = GgufType{read<std::uint32_t>("a tensor's type")};
    const GgufTypeInfo* info = find_gguf_type(tensor.type);
    if (info == nullptr)
      refuse_tensor(tensor,
                    fmt::format("unknown type {}", static_cast<std::uint32_t>(tensor.type)));
    if (tensor.columns() % info->block != 0)
      refuse_tensor(tensor,
                    fmt::format("rows of {} elements, which {} cannot hold: its blocks have "
                                "{}",
                                tensor.columns(), info->name, info->block));
    const auto offset = read<std::uint64_t>("a tensor's offset");
    if (offset % alignment != 0)
      refuse_tensor(tensor, fmt::format("offset {} is not a multiple of the alignment {}", offset,
                                        alignment));
    tensor.offset = offset;
    return tensor;
  }

  void place_tensors(std::vector<Tensor>& tensors, std::uint64_t alignment) {
    if (tensors.empty()) return;
    const std::uint64_t data_start = aligned(position_, alignment);
    const std::uint64_t available = file_.size() > data_start ? file_.size() - data_start : 0;
    std::vector<Tensor*> order;
    for (Tensor& tensor : tensors) order.push_back(&tensor);
    std::stable_sort(order.begin(), order.end(),
                     [](const Tensor* a, const Tensor* b) { return a->offset < b->offset; });
    for (std::size_t i = 0; i < order.size(); ++i) {
      Tensor& tensor = *order[i];
      const bool last = i + 1 == order.size();
      const std::uint64_t end = last ? available : std::min(available, order[i + 1]->offset);
      const std::uint64_t bytes = gguf_tensor_bytes(tensor.type, tensor.columns(), tensor.rows());
      if (tensor.offset > end || bytes > end - tensor.offset) {
        check_foreign_q2(tensor, tensor.offset > end ? 0 : end - tensor.offset, last, alignment);
        refuse_tensor(
            tensor,
            fmt::format("takes {} bytes at offset {} of the data, but {}", bytes, tensor.offset,
                        end == available
                            ? fmt::format("the file has only {}; it is truncated", available)
                            : fmt::format("tensor {} begins at {}: they overlap",
                                          printable(order[i + 1]->name), end)));
      }
      tensor.bytes = file_.subspan(data_start + tensor.offset, bytes);
    }
    for (Tensor& tensor : tensors) tensor.offset += data_start;
  }

  // A tensor of q2_0 that is too small by just what larger blocks save.
  void check_foreign_q2(const Tensor& tensor, std::uint64_t room, bool last,
                        std::uint64_t alignment) {
    if (tensor.type != GgufType::q2_0 || tensor.columns() % kForeignQ2Block != 0) return;
    const auto blocks =
        static_cast<std::uint64_t>(tensor.columns() / kForeignQ2Block * tensor.rows());
    const std::uint64_t bytes = blocks * kForeignQ2Bytes;
    if (room != aligned(bytes, alignment) && !(last && room == bytes)) return;
    refuse_tensor(tensor, fmt::format("its size is that of q2_0 with blocks of {} ({} bytes each), "
                                      "which PrismML's fork writes under the same type number; "
                                      "expected blocks of 64. Convert the model again with the "
                                      "llama.cpp of today",
                                      kForeignQ2Block, kForeignQ2Bytes));
  }

  void check_count(std::uint64_t count, std::uint64_t limit, std::uint64_t least,
                   const char* what) {
    if (count > limit)
      refuse(8, fmt::format("{} {}, above this program's limit of {}", count, what, limit));
    if (count > left() / least)
      refuse(8, fmt::format("{} {}, but only {} bytes follow; the file is truncated or damaged",
                            count, what, left()));
  }

  template <typename Number>
  Number read(const char* what) {
    if (left() < sizeof(Number))
      refuse(position_, fmt::format("the file ends within {}; it is truncated", what));
    Number number;
    std::memcpy(&number, file_.data() + position_, sizeof number);
    position_ += sizeof number;
    return number;
  }

  std::string_view read_string(const char* what) {
    const std::uint64_t start = position_;
    const auto length = read<std::uint64_t>(what);
    if (length > left())
      refuse(start, fmt::format("{} of {} bytes, but only {} follow; the file is truncated or "
                                "damaged",
                                what, length, left()));
    const std::string_view text(reinterpret_cast<const char*>(file_.data()) + position_,
                                static_cast<std::size_t>(length));
    position_ += length;
    return text;
  }

  std::uint64_t left() const { return file_.size() - position_; }
  [[noreturn]] void refuse(std::uint64_t offset, const std::string& reason) const {
    throw FormatError(name_, offset, reason);
  }
  [[noreturn]] void refuse_tensor(const Tensor& tensor, const std::string& reason) const {
    refuse(position_, fmt::format("tensor {}: {}", printable(tensor.name), reason));
  }

  std::span<const std::uint8_t> file_;
  const std::string& name_;
  std::uint64_t position_ = 0;
  std::string_view key_;  // being read, for messages
};

}  // namespace

std::uint64_t gguf_value_bytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::u8:
    case GgufValueType::i8:
    case GgufValueType::boolean:
      return 1;
    case GgufValueType::u16:
    case GgufValueType::i16:
      return 2;
    case GgufValueType::u32:
    case GgufValueType::i32:
    case GgufValueType::f32:
      return 4;
    case GgufValueType::u64:
    case GgufValueType::i64:
    case GgufValueType::f64:
      return 8;
    case GgufValueType::string:
    case GgufValueType::array:
      return 0;
  }
  return 0;
}

void parse_gguf(std::span<const std::uint8_t> bytes, const std::string& name,
                std::map<std::string, Value, std::less<>>& metadata, std::vector<Tensor>& tensors) {
  Parser(bytes, name).parse(metadata, tensors);
}

}  // namespace bitnet
