// SPDX-License-Identifier: MIT
// The folder of one training run:
//   config.json  metrics.jsonl  train.log  tb/  checkpoint-<step>/  latest -> checkpoint-<step>
//   best -> checkpoint-<step>  lock
// A checkpoint is written as tmp-checkpoint-<step>; when all of it is on the disk, its file
// COMPLETE is written and the folder gets its final name by an atomic rename. Killed at any moment,
// the run keeps every checkpoint that was complete.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

namespace bitnet {

// The file `lock` of a run folder, locked while this lives. The kernel unlocks it when the process
// ends, however it ends.
class FolderLock {
 public:
  // Throws Error when another process has it.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FolderLock& operator=(FolderLock&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }

 private:
  int descriptor_;
};

// The one process that writes a run has a RunFolder; reading a run needs none.
class RunFolder {
 public:
  // A fresh run. With `force`, deletes the run that the folder holds. Throws as check_replaceable(),
  // and Error when another process trains there.
  static RunFolder create(const std::filesystem::path& path, bool force);
  // A run to be continued: finishes or removes what an interrupted program left behind. Throws
  // Error when it is not a run folder, or another process trains there.
  static RunFolder open(const std::filesystem::path& path);

  // Throws UsageError unless `path` is absent, empty, or, with `force`, a folder that holds nothing
  // but a run. Only reads.
  static void check_replaceable(const std::filesystem::path& path, bool force);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config_file() const { return path_ / "config.json"; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path log_file() const { return path_ / "train.log"; }
  std::filesystem::path tensorboard_folder() const { return path_ / "tb"; }
  std::filesystem::path checkpoint_folder(std::int64_t step) const;

  // An empty folder to write the checkpoint's files into.
  std::filesystem::path begin_checkpoint(std::int64_t step);
  // Makes it durable, gives it its name and points `latest` to it. Returns its folder. A checkpoint
  // of the same step is replaced.
  std::filesystem::path complete_checkpoint(std::int64_t step);
  // Points `best` to a complete checkpoint.
  void mark_best(std::int64_t step);
  // Deletes the oldest checkpoints beyond `keep`; 0 keeps all. Those that `latest` and `best` point
  // to always stay.
  void delete_old_checkpoints(std::int64_t keep);

  // Steps of the complete checkpoints, ascending.
  std::vector<std::int64_t> list_checkpoints() const;
  // The step of newest_checkpoint().
  std::optional<std::int64_t> latest_checkpoint() const;

 private:
  // Locks the folder.
  explicit RunFolder(const std::filesystem::path& path) : path_(path), lock_(path) {}
  void repair();

  std::filesystem::path path_;
  FolderLock lock_;
};

// The checkpoint folder of a run that `latest` points to; if it points nowhere, the highest
// complete one. Only reads.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& run_folder);

// Whether `folder` holds the file that marks a complete checkpoint.
bool is_complete_checkpoint(const std::filesystem::path& folder);

// Whether `folder` is a training checkpoint, complete or not, by its temporary name or by the files
// of the training state.
bool looks_like_checkpoint(const std::filesystem::path& folder);

// Replaces `link` atomically by a relative symbolic link to `target`, or by a text file with the
// same content where the file system has no links.
void point_to(const std::filesystem::path& link, const std::filesystem::path& target);

// What point_to() made leads to; nothing when `link` is absent or something else.
std::optional<std::filesystem::path> pointed_path(const std::filesystem::path& link);

}  // namespace bitnet
