// SPDX-License-Identifier: MIT
// Writing the packed 2-bit model folder, in Hugging Face's layout.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <system_error>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/checkpoint/model_file.h"
#include "core/checkpoint/model_metadata.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr std::string_view kInProgress = ".quantize-tmp-", kReplaced = ".quantize-old-";

// A folder that is made under another name, "<target>.quantize-tmp-<process id>"; removed again
// unless it is moved to its place.
class FolderInProgress {
 public:
  explicit FolderInProgress(const fs::path& target)
      : target_(target.has_filename() ? target : target.parent_path()),
        parent_(target_.has_parent_path() ? target_.parent_path() : fs::path(".")),
        temporary_(beside(kInProgress)),
        old_(beside(kReplaced)) {
    make_folders(parent_);
    remove_leftovers();
    make_folders(temporary_);
  }
  ~FolderInProgress() {
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
  }
  FolderInProgress(const FolderInProgress&) = delete;
  FolderInProgress& operator=(const FolderInProgress&) = delete;

  const fs::path& path() const { return temporary_; }

  // What had the target's name is deleted only when the new folder has it.
  void move_to_target() {
    std::error_code code;
    if (!exchange()) {
      const bool replaces = fs::exists(fs::symlink_status(target_));
      if (replaces) fs::rename(target_, old_, code);
      if (!code) fs::rename(temporary_, target_, code);
      std::error_code ignored;
      if (code && replaces && !fs::exists(target_)) fs::rename(old_, target_, ignored);
    }
    if (code) {
      throw Error(fmt::format("{}: cannot give the finished folder its name: {}", target_.string(),
                              code.message()));
    }
    sync_folder(parent_);
    fs::remove_all(old_, code);
  }

 private:
  fs::path beside(std::string_view suffix) const {
    fs::path path = target_;
    return path += fmt::format("{}{}", suffix, ::getpid());
  }

  // Target and temporary folder change names at once, so that the target is never missing. False
  // where there is no target or the file system cannot.
  bool exchange() const {
    return ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) ==
           0;
  }

  // What killed processes left of the same target. An old folder stays while it is the only one.
  void remove_leftovers() const {
    const bool target_exists = fs::exists(target_);
    std::vector<fs::path> leftovers;
    std::error_code code;
    for (fs::directory_iterator it(parent_, code), end; !code && it != end; it.increment(code)) {
      const std::string name = it->path().filename().string();
      for (const std::string_view suffix : {kInProgress, kReplaced}) {
        const std::string prefix = target_.filename().string() + std::string(suffix);
        if (!name.starts_with(prefix) || !is_dead_process(name.substr(prefix.size()))) continue;
        if (suffix == kInProgress || target_exists) leftovers.push_back(it->path());
      }
    }
    for (const fs::path& path : leftovers) fs::remove_all(path, code);
  }

  static bool is_dead_process(const std::string& id) {
    pid_t process = 0;
    const auto [end, code] = std::from_chars(id.data(), id.data() + id.size(), process);
    if (code != std::errc() || end != id.data() + id.size() || process <= 0) return false;
    return process == ::getpid() || (::kill(process, 0) != 0 && errno == ESRCH);
  }

  fs::path target_, parent_, temporary_, old_;
};

// Nothing but a packed model, or what is left of one, may be replaced.
void check_target(const fs::path& folder, bool force) {
  if (!fs::exists(fs::symlink_status(folder))) return;
  if (!fs::is_directory(folder)) {
    throw Error(fmt::format("{}: exists and is not a folder; choose another", folder.string()));
  }
  if (fs::is_empty(folder)) return;
  if (!force) {
    throw Error(fmt::format("{}: already exists; choose another folder, or replace it with --force",
                            folder.string()));
  }
  static const std::set<std::string> kOurs = {"config.json", "generation_config.json",
                                              "model.safetensors"};
  for (const auto& item : fs::directory_iterator(folder)) {
    const std::string name = item.path().filename().string();
    if (kOurs.contains(name)) continue;
    throw Error(
        fmt::format("{}: not replaced, because it holds {}, which is no part of a packed model; "
                    "choose another folder",
                    folder.string(), name));
  }
  WeightForm form = WeightForm::packed;
  try {
    form = resolve_model(folder).form;
  } catch (const Error&) {
    // Damaged or without a model: nothing is lost.
  }
  if (form == WeightForm::latent) {
    throw Error(
        fmt::format("{}: not replaced, because it holds latent weights; choose another folder",
                    folder.string()));
  }
}

std::vector<std::uint16_t> round_to_bf16(const std::vector<float>& floats) {
  std::vector<std::uint16_t> result(floats.size());
  for (std::size_t i = 0; i < floats.size(); ++i) result[i] = to_bf16(floats[i]);
  return result;
}

// Copies of one tensor at a time, alive until the next is fetched.
struct HostCopy {
  std::vector<float> floats;
  std::vector<std::uint16_t> halves;
  std::vector<std::uint8_t> bytes;
};

std::vector<TensorToWrite> packed_tensors(Transformer& transformer, FloatDtype dtype,
                                          HostCopy& copy) {
  Backend& backend = transformer.backend();
  std::vector<TensorToWrite> tensors;
  const auto add_floats = [&](const std::string& name, ConstTensorView values, FloatDtype stored) {
    tensors.push_back({.name = name,
                       .dtype = stored == FloatDtype::bf16 ? "BF16" : "F32",
                       .shape = dims_of(values.shape()),
                       .fetch = [&backend, &copy, values, stored]() -> const void* {
                         copy.floats = host_floats(backend, values);
                         if (stored == FloatDtype::f32) return copy.floats.data();
                         copy.halves = round_to_bf16(copy.floats);
                         return copy.halves.data();
                       }});
  };
  for (Parameter& parameter : transformer.parameters().all()) {
    const std::string& name = parameter.spec.name;
    if (!parameter.packed) {
      add_floats(name, parameter.value, dtype);
      continue;
    }
    const ConstTensorView packed = parameter.packed;
    tensors.push_back({.name = name,
                       .dtype = "U8",
                       .shape = dims_of(packed.shape()),
                       .fetch = [&backend, &copy, packed]() -> const void* {
                         copy.bytes.resize(static_cast<std::size_t>(packed.bytes()));
                         backend.copy_to_host(packed, copy.bytes.data());
                         return copy.bytes.data();
                       }});
    // Stored, never recomputed: the mean of |W| of ternary weights is another number. fp32 keeps
    // the products bit-equal.
    add_floats(weight_scale_name(name), parameter.weight_scale, FloatDtype::f32);
  }
  return tensors;
}

PackedReport make_report(Transformer& transformer, const fs::path& file) {
  PackedReport report;
  report.packed_bytes = fs::file_size(file);
  std::int64_t projection_bytes = 0;
  for (Parameter& parameter : transformer.parameters().all()) {
    report.weights += parameter.spec.shape.elements();
    if (!parameter.packed) continue;
    report.projection_weights += parameter.spec.shape.elements();
    projection_bytes += parameter.packed.bytes() + parameter.weight_scale.bytes();
    const CodeCounts counts = transformer.backend().count_codes(parameter.packed);
    report.codes.minus += counts.minus;
    report.codes.zero += counts.zero;
    report.codes.plus += counts.plus;
    report.codes.invalid += counts.invalid;
  }
  report.bits_per_projection_weight =
      8.0 * static_cast<double>(projection_bytes) / static_cast<double>(report.projection_weights);
  report.bits_per_weight =
      8.0 * static_cast<double>(report.packed_bytes) / static_cast<double>(report.weights);
  return report;
}

}  // namespace

PackedReport save_packed(Transformer& transformer, const fs::path& folder, FloatDtype float_dtype,
                         bool force, const std::map<std::string, std::string>& extra_metadata,
                         const std::function<void(const fs::path&)>& verify) {
  const ModelConfig& config = transformer.config();
  if (!config.quantized()) {
    throw UsageError(
        "the model has float projections (linear = float), so there is nothing to pack; expected "
        "b158 or b1");
  }
  check_target(folder, force);
  transformer.refresh_quantized();
  FolderInProgress output(folder);
  HostCopy copy;
  auto metadata = model_metadata(config, WeightForm::packed, float_dtype);
  metadata.insert(extra_metadata.begin(), extra_metadata.end());
  write_safetensors(output.path() / "model.safetensors",
                    packed_tensors(transformer, float_dtype, copy), metadata);
  write_file(output.path() / "config.json",
             config_to_json(config, WeightForm::packed, float_dtype).dump(2) + "\n");
  write_file(output.path() / "generation_config.json",
             ordered_json{{"bos_token_id", 0}, {"eos_token_id", 0}}.dump(2) + "\n");
  const PackedReport report = make_report(transformer, output.path() / "model.safetensors");
  if (verify) verify(output.path());
  output.move_to_target();
  return report;
}

}  // namespace bitnet
