// SPDX-License-Identifier: MIT
// The bytes that a model is trained and scored on: a raw file mapped into memory, or a gzip file
// (.gz, and dictd's .dz) inflated into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "core/base/file.h"

namespace bitnet {

// Move-only. bytes() stays valid when the source is moved.
class ByteSource {
 public:
  // More is refused: inflated bytes live in memory, while a raw file is only mapped. 16 GiB, or a
  // third of the machine's memory: while the bytes move to a larger buffer they are there twice.
  static std::size_t max_inflated_bytes();

  // Throws Error when the file cannot be opened, FormatError when it is empty, truncated,
  // corrupted, named like gzip without being gzip, or inflates to more than max_bytes.
  explicit ByteSource(const std::filesystem::path& path,
                      std::size_t max_bytes = max_inflated_bytes());

  // Never empty.
  std::span<const std::uint8_t> bytes() const {
    return mapped_ ? mapped_->bytes() : std::span<const std::uint8_t>(inflated_);
  }

 private:
  std::optional<MappedFile> mapped_;    // raw file
  std::vector<std::uint8_t> inflated_;  // gzip file
};

// The content of a gzip file's members, one after the other. `path` is only used in messages.
std::vector<std::uint8_t> inflate_gzip(std::span<const std::uint8_t> compressed,
                                       const std::filesystem::path& path, std::size_t max_bytes);

}  // namespace bitnet
