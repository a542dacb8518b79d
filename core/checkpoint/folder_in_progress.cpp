// SPDX-License-Identifier: MIT
#include "core/checkpoint/folder_in_progress.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <system_error>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/leftovers.h"
#include "core/base/safetensors.h"
#include "core/checkpoint/model_file.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kInProgress = ".bitnet-tmp-", kReplaced = ".bitnet-old-";

bool is_weights_file(std::string_view name) {
  return name.starts_with("model") && name.ends_with(".safetensors");
}

bool is_model_folder_file(std::string_view name) {
  static constexpr std::string_view kNames[] = {
      "config.json",     "generation_config.json", "model.safetensors.index.json",
      "tokenizer.json",  "tokenizer_config.json",  "special_tokens_map.json",
      "tokenizer.model", "chat_template.jinja",    "added_tokens.json"};
  return is_weights_file(name) ||
         std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

// Weights that exist nowhere else: floats that no conversion wrote. Throws Error for a file that
// cannot be read.
bool holds_latent_weights(const fs::path& file) {
  try {
    const SafetensorsFile weights(file);
    if (weights.metadata().contains(kSourceKey)) return false;
    return std::none_of(weights.entries().begin(), weights.entries().end(), [](const auto& entry) {
      return entry.dtype == "U8" && entry.name.ends_with("_proj.weight");
    });
  } catch (const FormatError&) {
    return false;  // damaged: nothing is lost
  }
}

void check_replaceable(const fs::path& folder, bool force) {
  if (!fs::exists(fs::symlink_status(folder))) return;
  if (!fs::is_directory(folder)) {
    throw Error(fmt::format("{}: exists and is not a folder; choose another", folder.string()));
  }
  if (fs::is_empty(folder)) return;
  if (!force) {
    throw Error(fmt::format("{}: already exists; choose another folder, or replace it with --force",
                            folder.string()));
  }
  for (const auto& item : fs::directory_iterator(folder)) {
    const std::string name = item.path().filename().string();
    if (!is_model_folder_file(name)) {
      throw Error(
          fmt::format("{}: not replaced, because it holds {}, which is no part of a written model; "
                      "choose another folder",
                      folder.string(), name));
    }
    if (is_weights_file(name) && holds_latent_weights(item.path())) {
      throw Error(
          fmt::format("{}: not replaced, because it holds latent weights; choose another folder",
                      folder.string()));
    }
  }
}

}  // namespace

FolderInProgress::FolderInProgress(const fs::path& target, bool force)
    : target_(target.has_filename() ? target : target.parent_path()),
      parent_(target_.has_parent_path() ? target_.parent_path() : fs::path(".")),
      temporary_(beside(kInProgress)),
      old_(beside(kReplaced)),
      force_(force) {
  check_replaceable(target_, force_);
  make_folders(parent_);
  remove_leftovers(target_, kInProgress);
  // An old folder stays while it is the only one.
  if (fs::exists(target_)) remove_leftovers(target_, kReplaced);
  make_folders(temporary_);
}

FolderInProgress::~FolderInProgress() {
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void FolderInProgress::move_to_target() {
  check_replaceable(target_, force_);
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

fs::path FolderInProgress::beside(std::string_view suffix) const {
  fs::path path = target_;
  return path += fmt::format("{}{}", suffix, ::getpid());
}

// Target and temporary folder change names at once, so that the target is never missing. False
// where there is no target or the file system cannot.
bool FolderInProgress::exchange() const {
  return ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0;
}

}  // namespace bitnet
