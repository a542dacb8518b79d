// SPDX-License-Identifier: MIT
// Writing a model folder so that its name is given to it only when it is whole.
#pragma once

#include <filesystem>
#include <string_view>

namespace bitnet {

// A folder that is made under another name, "<target>.bitnet-tmp-<process id>"; removed again
// unless it is moved to its place. What killed processes left of the same target is removed first.
class FolderInProgress {
 public:
  explicit FolderInProgress(const std::filesystem::path& target);
  ~FolderInProgress();
  FolderInProgress(const FolderInProgress&) = delete;
  FolderInProgress& operator=(const FolderInProgress&) = delete;

  const std::filesystem::path& path() const { return temporary_; }

  // What had the target's name is deleted only when the new folder has it.
  void move_to_target();

 private:
  std::filesystem::path beside(std::string_view suffix) const;
  bool exchange() const;
  void remove_leftovers() const;

  std::filesystem::path target_, parent_, temporary_, old_;
};

// The note of a conversion in a model file's metadata: what the model was converted from. Its
// latent weights can be made again.
inline constexpr const char* kSourceKey = "bitnet_source";

// Throws Error unless `folder` is absent, empty or, with `force`, holds nothing but the files of a
// model whose weights are packed or were converted: latent weights of a training are never replaced.
void check_model_folder_replaceable(const std::filesystem::path& folder, bool force);

}  // namespace bitnet
