// SPDX-License-Identifier: MIT
#include "app/model_option.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/standard_streams.h"
#include "core/base/config_io.h"
#include "core/base/file.h"
#include "core/train/run_config.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPackedSuffix = "-packed";

constexpr const char* kDataKey = "bitnet_data";

// A model's config.json has no "data" section; a run's has.
std::optional<DataConfig> read_run_data(const fs::path& run_folder) {
  const fs::path file = run_folder / "config.json";
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return std::nullopt;
  const std::string text = read_text_file(file, kMaxConfigBytes);
  const nlohmann::json object = parse_json(text, file.string());
  if (!object.is_object() || !object.contains("data")) return std::nullopt;
  return read_run_config(text, file.string()).data;
}

DataConfig read_data_metadata(const std::string& text, const fs::path& model_file) {
  const std::string where = fmt::format("{} (__metadata__.{})", model_file.string(), kDataKey);
  DataConfig data;
  try {
    read_fields(parse_json(text, where), "data",
                [&](FieldVisitor& visitor) { data.visit_fields(visitor); });
    data.validate();
  } catch (const UsageError& error) {
    throw FormatError(where, 0, error.what());
  }
  if (std::any_of(data.path.begin(), data.path.end(), [](unsigned char c) { return c < 0x20; }))
    throw FormatError(where, 0, fmt::format("data.path is {}", printable(data.path)));
  return data;
}

bool is_checkpoint_name(std::string_view name) {
  constexpr std::string_view kPrefix = "checkpoint-";
  return name.starts_with(kPrefix) && name.size() > kPrefix.size() &&
         name.find_first_not_of("0123456789", kPrefix.size()) == std::string_view::npos;
}

}  // namespace

void add_model_option(CLI::App& command, std::string& model) {
  command
      .add_option("--model", model,
                  "A run, checkpoint or packed folder, a .safetensors file, or what import "
                  "reads")
      ->capture_default_str();
}

std::unique_ptr<ModelReader> open_model_option(const std::string& model) {
  auto reader = open_model(model);
  for (const std::string& warning : reader->warnings())
    write_stderr_line("bitnet: warning: " + warning);
  return reader;
}

void add_head_option(CLI::App& command, std::string& head) {
  command
      .add_option("--head", head,
                  "fp32 or int8: in what the output head is computed. int8 reads a quarter of the "
                  "bytes and rounds head and activations to 8 bits, so logits differ slightly: "
                  "generate and bench take it to be quick, eval takes fp32 because it measures")
      ->check(CLI::IsMember({"fp32", "int8"}))
      ->capture_default_str();
}

void add_kv_cache_option(CLI::App& command, std::string& kv_cache) {
  command
      .add_option(
          "--kv-cache", kv_cache,
          "fp32 or fp16: in what keys and values are kept. fp16 takes half the memory, is quicker "
          "with many of them, and rounds each once, so logits differ slightly: generate and "
          "bench take it; eval rounds as such a cache would, and takes fp32 because it "
          "measures")
      ->check(CLI::IsMember({"fp32", "fp16"}))
      ->capture_default_str();
}

DType parse_kv_cache(const std::string& kv_cache) {
  return kv_cache == "fp16" ? DType::f16 : DType::f32;
}

std::string kv_cache_suspicion(const std::string& kv_cache) {
  return parse_kv_cache(kv_cache) == DType::f32
             ? ""
             : ", or its keys or values are beyond the 65504 of fp16 (try --kv-cache fp32)";
}

HeadPrecision parse_head(const std::string& head) {
  return head == "int8" ? HeadPrecision::int8 : HeadPrecision::fp32;
}

fs::path default_packed_folder(const fs::path& model) {
  fs::path folder = model.has_filename() ? model : model.parent_path();  // "runs/a/" is "runs/a"
  // A link such as runs/latest will lead elsewhere one day: the name is that of what it leads to
  // now.
  std::error_code ignored;
  if (folder == "." || folder == ".." || fs::is_symlink(folder, ignored))
    folder = fs::proximate(fs::canonical(folder));
  if (folder.extension() == ".safetensors") folder.replace_extension();
  folder += kPackedSuffix;
  return folder;
}

std::optional<DataConfig> find_run_data(const ModelReader& model) {
  if (!model.is_native()) return std::nullopt;
  const auto metadata = model.metadata();
  const auto stored = metadata.find(kDataKey);
  if (stored != metadata.end()) return read_data_metadata(stored->second, model.path());
  std::error_code ignored;
  const fs::path folder = fs::weakly_canonical(model.path().parent_path(), ignored);
  std::string name = folder.filename().string();
  const bool packed = name.ends_with(kPackedSuffix);
  if (packed) name.resize(name.size() - kPackedSuffix.size());
  if (is_checkpoint_name(name)) return read_run_data(folder.parent_path());
  return packed ? read_run_data(folder.parent_path() / name) : std::nullopt;
}

std::map<std::string, std::string> data_metadata(DataConfig data) {
  return {
      {kDataKey, write_fields([&](FieldVisitor& visitor) { data.visit_fields(visitor); }).dump()}};
}

}  // namespace bitnet
