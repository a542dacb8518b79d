// SPDX-License-Identifier: MIT
// Files: reading whole, mapping, and writing so that a crash or a full disk never damages what was
// there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// A whole file mapped read-only. Move-only. An empty file maps to an empty span.
class MappedFile {
 public:
  // Throws Error naming the path and the system's reason; a folder or other non-regular file is
  // refused.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::uint8_t> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Says that all of it will be read, so that the system maps it, and reads what is not yet in its
  // cache, in large pages where it can: a first touch of every page then costs next to nothing.
  void expect_whole_read() const;

 private:
  std::filesystem::path path_;
  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

// The content of a regular file of at most max_bytes; throws Error otherwise.
std::string read_text_file(const std::filesystem::path& path,
                           std::size_t max_bytes = std::size_t{1} << 26);

// A file being written: append, then commit(), which flushes it to the disk (fsync) and gives it
// its final name by an atomic rename. Destroyed before commit(), it removes its temporary file and
// the old file, if any, stays. A failed write, which may show as late as in commit(), throws Error
// with the path and the system's reason (for example "No space left on device").
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::uint8_t> bytes);
  void write(std::string_view text);
  void commit();

 private:
  void flush();

  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
  // What follows the last whole large page of the file. Linux caches a file in pages as large as
  // the writes that made it, and maps it with large pages only where they are that large.
  std::vector<std::uint8_t> pending_;
};

void write_file(const std::filesystem::path& path,
                std::string_view text);  // OutputFile, write, commit

// Makes a rename within `folder` durable.
void sync_folder(const std::filesystem::path& folder);

// Creates the folder and its parents; throws Error with the reason.
void make_folders(const std::filesystem::path& folder);

}  // namespace bitnet
