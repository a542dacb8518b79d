// SPDX-License-Identifier: MIT
// The folder that `bitnet bench load` writes its model into.
#pragma once

#include <filesystem>

namespace bitnet {

// A new folder among the temporary files, deleted with its owner. Folders of processes that were
// killed before they could do so are deleted first.
class BenchFolder {
 public:
  BenchFolder();  // throws Error
  ~BenchFolder();
  BenchFolder(const BenchFolder&) = delete;
  BenchFolder& operator=(const BenchFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

}  // namespace bitnet
