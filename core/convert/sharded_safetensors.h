// SPDX-License-Identifier: MIT
// The tensors of a folder that keeps them in one model.safetensors or, with an index, in several
// files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/safetensors.h"

namespace bitnet {

class ShardedSafetensors {
 public:
  struct Tensor {
    const SafetensorsFile* file = nullptr;
    const SafetensorsFile::Entry* entry = nullptr;
  };

  // Opens model.safetensors, else every file that model.safetensors.index.json names. The index and
  // the files must agree: each tensor of the index is in the file that it says, each tensor of a
  // file is in the index. Throws Error where there is neither, FormatError otherwise.
  explicit ShardedSafetensors(const std::filesystem::path& folder);

  const std::map<std::string, Tensor, std::less<>>& tensors() const { return tensors_; }
  const Tensor* find(std::string_view name) const;  // nullptr when there is none
  std::size_t file_count() const { return files_.size(); }

 private:
  void open_index(const std::filesystem::path& index);

  std::vector<SafetensorsFile> files_;
  std::map<std::string, Tensor, std::less<>> tensors_;
};

// Writes the tensors to folder/model.safetensors or, where they have more than max_shard_bytes, to
// folder/model-00001-of-000NN.safetensors, … with model.safetensors.index.json. Tensors keep their
// order between files; one that is larger than a shard gets a file of its own. Returns the bytes of
// all files.
std::uint64_t write_sharded(const std::filesystem::path& folder,
                            std::span<const TensorToWrite> tensors,
                            const std::map<std::string, std::string>& metadata,
                            std::uint64_t max_shard_bytes);

// "5GB", "300MB", "4GiB", "1000000": as Hugging Face counts, GB being 10^9 and GiB 2^30. Throws
// UsageError.
std::uint64_t parse_byte_size(std::string_view text);

}  // namespace bitnet
