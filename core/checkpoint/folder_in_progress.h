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
  // Throws Error unless the target is absent, empty or, with `force`, holds nothing but the files of
  // a model whose weights are packed or were converted: latent weights of a training are never
  // replaced.
  FolderInProgress(const std::filesystem::path& target, bool force);
  ~FolderInProgress();
  FolderInProgress(const FolderInProgress&) = delete;
  FolderInProgress& operator=(const FolderInProgress&) = delete;

  const std::filesystem::path& path() const { return temporary_; }

  // What had the target's name is deleted only when the new folder has it. Throws as the constructor
  // does for what has appeared there meanwhile.
  void move_to_target();

 private:
  std::filesystem::path beside(std::string_view suffix) const;
  bool exchange() const;

  std::filesystem::path target_, parent_, temporary_, old_;
  bool force_;
};

// The note of a conversion in a model file's metadata: what the model was converted from. Its
// latent weights can be made again.
inline constexpr const char* kSourceKey = "bitnet_source";

}  // namespace bitnet
