// SPDX-License-Identifier: MIT
#include "core/convert/sharded_safetensors.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/config_io.h"
#include "core/base/error.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::size_t kMaxIndexBytes = std::size_t{1} << 26;

// Only a file of the same folder: the index is data, and must not lead elsewhere.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

std::uint64_t bytes_of(const TensorToWrite& tensor) {
  std::uint64_t bytes = tensor.dtype == "F32"                             ? 4
                        : tensor.dtype == "BF16" || tensor.dtype == "F16" ? 2
                                                                          : 1;
  for (const std::int64_t dim : tensor.shape) bytes *= static_cast<std::uint64_t>(dim);
  return bytes;
}

// Consecutive tensors, by the number of them in each file.
std::vector<std::size_t> cut_into_shards(std::span<const TensorToWrite> tensors,
                                         std::uint64_t max_bytes) {
  std::vector<std::size_t> counts;
  std::uint64_t filled = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::uint64_t bytes = bytes_of(tensor);
    if (counts.empty() || filled + bytes > max_bytes) {
      counts.push_back(0);
      filled = 0;
    }
    filled += bytes;
    ++counts.back();
  }
  return counts;
}

}  // namespace

ShardedSafetensors::ShardedSafetensors(const fs::path& folder) {
  const fs::path single = folder / kSingleFile, index = folder / kIndexFile;
  if (fs::exists(single)) {
    files_.emplace_back(single);
    for (const auto& entry : files_[0].entries())
      tensors_.emplace(entry.name, Tensor{&files_[0], &entry});
    return;
  }
  if (!fs::exists(index)) {
    throw Error(fmt::format("{}: holds no model; looked for {} and {}{}", folder.string(),
                            kSingleFile, kIndexFile,
                            fs::exists(folder / "pytorch_model.bin")
                                ? " (pytorch_model.bin is not read: save it as safetensors)"
                                : ""));
  }
  open_index(index);
}

void ShardedSafetensors::open_index(const fs::path& index) {
  const std::string where = index.string();
  const json object = parse_json(read_text_file(index, kMaxIndexBytes), where);
  const auto map = object.is_object() ? object.find("weight_map") : object.end();
  if (!object.is_object() || map == object.end() || !map->is_object())
    throw FormatError(where, 0, "has no object 'weight_map'");

  std::set<std::string> names;
  for (const auto& item : map->items()) {
    if (!item.value().is_string() || !is_plain_name(item.value().get<std::string>())) {
      throw FormatError(where, 0,
                        fmt::format("weight_map: the file of {} is {}, expected the name of a file "
                                    "in the same folder",
                                    printable(item.key()), printable(item.value().dump())));
    }
    names.insert(item.value().get<std::string>());
  }
  files_.reserve(names.size());  // entries are pointed to
  for (const std::string& name : names) {
    if (!fs::exists(index.parent_path() / name)) {
      throw FormatError(where, 0,
                        fmt::format("names the file {}, which is not there; all {} files of the "
                                    "model are needed",
                                    printable(name), names.size()));
    }
    const SafetensorsFile& file = files_.emplace_back(index.parent_path() / name);
    for (const auto& entry : file.entries()) {
      const auto mapped = map->find(entry.name);
      if (mapped == map->end()) {
        throw FormatError(
            file.path().string(), entry.offset,
            fmt::format("tensor {} is not in weight_map of {}", printable(entry.name), kIndexFile));
      }
      if (*mapped != name) {
        throw FormatError(
            file.path().string(), entry.offset,
            fmt::format("tensor {} is here, but {} says that it is in {}", printable(entry.name),
                        kIndexFile, printable(mapped->get<std::string>())));
      }
      tensors_.emplace(entry.name, Tensor{&file, &entry});
    }
  }
  for (const auto& item : map->items()) {
    if (tensors_.contains(item.key())) continue;
    throw FormatError(where, 0,
                      fmt::format("weight_map: tensor {} is not in {}", printable(item.key()),
                                  printable(item.value().get<std::string>())));
  }
}

const ShardedSafetensors::Tensor* ShardedSafetensors::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

std::uint64_t write_sharded(const fs::path& folder, std::span<const TensorToWrite> tensors,
                            const std::map<std::string, std::string>& metadata,
                            std::uint64_t max_shard_bytes) {
  const std::vector<std::size_t> counts = cut_into_shards(tensors, max_shard_bytes);
  if (counts.size() <= 1) {
    write_safetensors(folder / kSingleFile, tensors, metadata);
    return fs::file_size(folder / kSingleFile);
  }
  ordered_json index;
  std::uint64_t data_bytes = 0, file_bytes = 0;
  for (const TensorToWrite& tensor : tensors) data_bytes += bytes_of(tensor);
  index["metadata"]["total_size"] = data_bytes;
  std::size_t first = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, counts.size());
    const auto shard = tensors.subspan(first, counts[i]);
    write_safetensors(folder / name, shard, metadata);
    file_bytes += fs::file_size(folder / name);
    for (const TensorToWrite& tensor : shard) index["weight_map"][tensor.name] = name;
    first += counts[i];
  }
  write_file(folder / kIndexFile, index.dump(2) + "\n");
  return file_bytes;
}

std::uint64_t parse_byte_size(std::string_view text) {
  static constexpr struct {
    std::string_view suffix;
    std::uint64_t factor;
  } kUnits[] = {{"KiB", 1ull << 10},
                {"MiB", 1ull << 20},
                {"GiB", 1ull << 30},
                {"KB", 1'000},
                {"MB", 1'000'000},
                {"GB", 1'000'000'000},
                {"", 1}};
  for (const auto& unit : kUnits) {
    if (!text.ends_with(unit.suffix)) continue;
    const std::string_view digits = text.substr(0, text.size() - unit.suffix.size());
    std::uint64_t value = 0;
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (code != std::errc() || end != digits.data() + digits.size() || value == 0 ||
        value > (std::uint64_t{1} << 62) / unit.factor)
      break;
    return value * unit.factor;
  }
  throw UsageError(fmt::format(
      "{} is no size; expected a number of bytes such as 5GB, 300MB or 4GiB", printable(text)));
}

}  // namespace bitnet
