// SPDX-License-Identifier: MIT
#include "core/base/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "core/base/config_io.h"
#include "core/base/error.h"

namespace bitnet {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using Entry = SafetensorsFile::Entry;

static_assert(std::endian::native == std::endian::little,
              "tensors are written as they lie in memory");

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kFormatMaxHeaderBytes = 100'000'000;
// Ours: a parsed header takes some twenty times its length, and a thousand layers need 2 MB.
constexpr std::uint64_t kMaxHeaderBytes = std::uint64_t{1} << 24;
constexpr std::size_t kMaxRank = 64;
constexpr std::uint64_t kLineBytes = 64;  // a cache line
constexpr const char* kMetadataKey = "__metadata__";

// Bits of one element; 0 for an unknown name.
int bits_of(std::string_view dtype) {
  static constexpr struct {
    std::string_view name;
    int bits;
  } kDtypes[] = {{"F64", 64},    {"I64", 64},    {"U64", 64},        {"C64", 64},
                 {"F32", 32},    {"I32", 32},    {"U32", 32},        {"F16", 16},
                 {"BF16", 16},   {"I16", 16},    {"U16", 16},        {"F8_E5M2", 8},
                 {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
                 {"I8", 8},      {"U8", 8},      {"BOOL", 8},        {"F6_E2M3", 6},
                 {"F6_E3M2", 6}, {"F4", 4}};
  for (const auto& known : kDtypes) {
    if (known.name == dtype) return known.bits;
  }
  return 0;
}

// The header of one file while it is checked.
class HeaderReader {
 public:
  HeaderReader(const std::filesystem::path& path, std::span<const std::uint8_t> file)
      : path_(path.string()), file_(file) {}

  void read(std::map<std::string, std::string>& metadata, std::vector<Entry>& entries) {
    const json header = parse();
    for (const auto& item : header.items()) {
      if (item.key() == kMetadataKey) {
        read_metadata(item.value(), metadata);
      } else {
        entries.push_back(read_entry(item.key(), item.value()));
      }
    }
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::tuple(a.offset, a.bytes.size(), std::string_view(a.name)) <
             std::tuple(b.offset, b.bytes.size(), std::string_view(b.name));
    });
    check_tiling(entries);
  }

 private:
  json parse() {
    if (file_.size() < kLengthBytes) {
      refuse(0,
             fmt::format("the file has {} bytes, too few for a safetensors header", file_.size()));
    }
    std::uint64_t length = 0;
    std::memcpy(&length, file_.data(), kLengthBytes);
    if (length > kFormatMaxHeaderBytes) {
      refuse(0, fmt::format("header length {} is above the format's limit of {}; this is not a "
                            "safetensors file",
                            length, kFormatMaxHeaderBytes));
    }
    if (length > kMaxHeaderBytes) {
      refuse(0, fmt::format("header length {} is above this program's limit of {}", length,
                            kMaxHeaderBytes));
    }
    if (length > file_.size() - kLengthBytes) {
      refuse(0, fmt::format("header length {} but only {} bytes follow; the file is truncated",
                            length, file_.size() - kLengthBytes));
    }
    text_ = {reinterpret_cast<const char*>(file_.data()) + kLengthBytes,
             static_cast<std::size_t>(length)};
    data_start_ = kLengthBytes + length;
    if (text_.empty() || text_.front() != '{') {
      refuse(kLengthBytes, "the header does not begin with '{'; this is not a safetensors file");
    }
    // The parser would skip other white space too.
    const std::size_t end = text_.find_last_not_of(' ');
    if (text_[end] != '}') {
      refuse(kLengthBytes + end, "the header does not end with '}' and spaces");
    }
    return parse_json(text_, path_, JsonComments::refuse, kLengthBytes);
  }

  void read_metadata(const json& object, std::map<std::string, std::string>& metadata) {
    if (!object.is_object()) refuse(place_of(kMetadataKey), "__metadata__ is not an object");
    for (const auto& item : object.items()) {
      if (!item.value().is_string()) {
        refuse(place_of(item.key()),
               fmt::format("__metadata__: the value of {} is not a string", printable(item.key())));
      }
      metadata.emplace(item.key(), item.value().get<std::string>());
    }
  }

  Entry read_entry(const std::string& name, const json& object) {
    Entry entry;
    entry.name = name;
    if (!object.is_object()) refuse_tensor(name, "its description is not an object");
    for (const char* key : {"dtype", "shape", "data_offsets"}) {
      if (!object.contains(key)) refuse_tensor(name, fmt::format("'{}' is missing", key));
    }
    if (object.size() != 3) {
      refuse_tensor(name, "it has keys other than 'dtype', 'shape' and 'data_offsets'");
    }
    const json& dtype = object["dtype"];
    const int bits = dtype.is_string() ? bits_of(dtype.get_ref<const std::string&>()) : 0;
    if (bits == 0) {
      refuse_tensor(name, fmt::format("unknown dtype {}",
                                      printable(dtype.is_string() ? dtype.get<std::string>()
                                                                  : dtype.type_name())));
    }
    entry.dtype = dtype.get<std::string>();

    const json& shape = object["shape"];
    if (!shape.is_array()) refuse_tensor(name, "its shape is not an array");
    if (shape.size() > kMaxRank) {
      refuse_tensor(
          name, fmt::format("it has {} dimensions, expected at most {}", shape.size(), kMaxRank));
    }
    std::uint64_t total_bits = static_cast<std::uint64_t>(bits);
    for (const json& dim : shape) {
      const std::uint64_t size = non_negative(dim, name, "shape");
      entry.shape.push_back(static_cast<std::int64_t>(size));
      if (__builtin_mul_overflow(total_bits, size, &total_bits)) {
        refuse_tensor(name, "the product of its shape overflows 64 bits");
      }
    }
    if (total_bits % 8 != 0) {
      refuse_tensor(name, fmt::format("shape {} of {} is not a whole number of bytes",
                                      shape_text(entry.shape), entry.dtype));
    }

    const json& offsets = object["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2) {
      refuse_tensor(name, "its data_offsets are not two numbers");
    }
    const std::uint64_t begin = non_negative(offsets[0], name, "data_offsets");
    const std::uint64_t end = non_negative(offsets[1], name, "data_offsets");
    const std::uint64_t available = file_.size() - data_start_;
    if (begin > end) {
      refuse_tensor(name, fmt::format("data_offsets [{}, {}] run backwards", begin, end));
    }
    if (end > available) {
      refuse_tensor(name, fmt::format("data_offsets end at {} but only {} bytes follow the "
                                      "header; the file is truncated",
                                      end, available));
    }
    if (end - begin != total_bits / 8) {
      refuse_tensor(name,
                    fmt::format("shape {} of {} takes {} bytes, its data_offsets span {}",
                                shape_text(entry.shape), entry.dtype, total_bits / 8, end - begin));
    }
    entry.offset = data_start_ + begin;
    entry.bytes = file_.subspan(entry.offset, static_cast<std::size_t>(end - begin));
    return entry;
  }

  // Tensors follow each other without gap or overlap and end where the file ends.
  void check_tiling(const std::vector<Entry>& entries) {
    std::uint64_t expected = data_start_;
    for (const Entry& entry : entries) {
      if (entry.offset != expected) {
        refuse_tensor(
            entry.name,
            fmt::format("its bytes begin at {} of the file, expected {}: tensors {}", entry.offset,
                        expected, entry.offset > expected ? "leave a gap" : "overlap"));
      }
      expected += entry.bytes.size();
    }
    if (expected != file_.size()) {
      refuse(expected, fmt::format("{} bytes follow the last tensor, expected none",
                                   file_.size() - expected));
    }
  }

  std::uint64_t non_negative(const json& number, const std::string& name, const char* what) {
    if (!number.is_number_unsigned() || number.get<std::uint64_t>() > INT64_MAX) {
      refuse_tensor(name, fmt::format("{} holds something other than integers in [0, 2^63)", what));
    }
    return number.get<std::uint64_t>();
  }

  // Where the file mentions `key`, near enough for a message.
  std::uint64_t place_of(const std::string& key) const {
    const std::size_t found = text_.find(json(key).dump());
    return kLengthBytes + (found == std::string_view::npos ? 0 : found);
  }

  [[noreturn]] void refuse(std::uint64_t offset, const std::string& reason) const {
    throw FormatError(path_, offset, reason);
  }
  [[noreturn]] void refuse_tensor(const std::string& name, const std::string& reason) const {
    refuse(place_of(name), fmt::format("tensor {}: {}", printable(name), reason));
  }

  std::string path_;
  std::span<const std::uint8_t> file_;
  std::string_view text_;
  std::uint64_t data_start_ = 0;
};

std::uint64_t bytes_of(const TensorToWrite& tensor) {
  const int bits = bits_of(tensor.dtype);
  BITNET_CHECK(bits >= 8, "tensor {}: cannot write dtype {}", tensor.name, tensor.dtype);
  std::uint64_t elements = 1;
  for (const std::int64_t dim : tensor.shape) elements *= static_cast<std::uint64_t>(dim);
  return elements * static_cast<std::uint64_t>(bits) / 8;
}

struct Layout {
  std::vector<const TensorToWrite*> order;
  std::string header;  // length and JSON, padded
};

Layout lay_out(std::span<const TensorToWrite> tensors,
               const std::map<std::string, std::string>& metadata) {
  Layout layout;
  std::set<std::string> names{kMetadataKey};
  for (const TensorToWrite& tensor : tensors) {
    BITNET_CHECK(names.insert(tensor.name).second, "two tensors named {}", tensor.name);
    layout.order.push_back(&tensor);
  }
  const auto place = [](const TensorToWrite* tensor) {
    const bool whole_lines = bytes_of(*tensor) % kLineBytes == 0;
    return std::tuple(!whole_lines, -bits_of(tensor->dtype), std::string_view(tensor->name));
  };
  std::sort(layout.order.begin(), layout.order.end(),
            [&](const auto* a, const auto* b) { return place(a) < place(b); });

  std::uint64_t data_bytes = 0;
  ordered_json header;
  header[kMetadataKey]["format"] = "pt";
  for (const auto& [key, value] : metadata) header[kMetadataKey][key] = value;
  for (const TensorToWrite* tensor : layout.order) {
    const std::uint64_t begin = data_bytes;
    data_bytes += bytes_of(*tensor);
    header[tensor->name] = {
        {"dtype", tensor->dtype}, {"shape", tensor->shape}, {"data_offsets", {begin, data_bytes}}};
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  const std::uint64_t data_start =
      (kLengthBytes + text.size() + kLineBytes - 1) / kLineBytes * kLineBytes;
  text.resize(data_start - kLengthBytes, ' ');
  const std::uint64_t length = text.size();
  layout.header.assign(reinterpret_cast<const char*>(&length), kLengthBytes);
  layout.header += text;
  return layout;
}

}  // namespace

std::int64_t SafetensorsFile::Entry::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t dim : shape) product *= dim;
  return product;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  HeaderReader(path, file_.bytes()).read(metadata_, entries_);
  for (std::size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

const SafetensorsFile::Entry* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

void decode_floats(const SafetensorsFile::Entry& entry, std::int64_t first, std::span<float> out) {
  BITNET_CHECK(entry.is_float(), "tensor {}: {} are not floats", entry.name, entry.dtype);
  const auto count = static_cast<std::int64_t>(out.size());
  BITNET_CHECK(first >= 0 && first + count <= entry.elements(), "elements [{}, {}) of {}", first,
               first + count, entry.elements());
  if (out.empty()) return;
  const auto start = static_cast<std::size_t>(first);
  if (entry.dtype == "F32") {
    std::memcpy(out.data(), entry.bytes.data() + start * sizeof(float), out.size_bytes());
    return;
  }
  const bool bf16 = entry.dtype == "BF16";
  const std::uint8_t* source = entry.bytes.data() + start * 2;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto half = static_cast<std::uint16_t>(source[2 * i] | source[2 * i + 1] << 8);
    out[i] = bf16 ? from_bf16(half) : from_f16(half);
  }
}

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const Layout layout = lay_out(tensors, metadata);
  OutputFile file(path);
  file.write(layout.header);
  for (const TensorToWrite* tensor : layout.order) {
    const void* bytes = tensor->fetch ? tensor->fetch() : tensor->bytes;
    file.write(std::span(static_cast<const std::uint8_t*>(bytes),
                         static_cast<std::size_t>(bytes_of(*tensor))));
  }
  file.commit();
}

}  // namespace bitnet
