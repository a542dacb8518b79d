// SPDX-License-Identifier: MIT
// The bytes of a fuzzer's input as a file, for readers that map files: it lives in memory and keeps
// its path from one input to the next.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>

namespace bitnet::fuzz {

class InputFile {
 public:
  InputFile()
      : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)),
        path_("/proc/self/fd/" + std::to_string(descriptor_)) {
    if (descriptor_ < 0) std::abort();
  }
  ~InputFile() { ::close(descriptor_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  // No mapping of the file may be left.
  const std::filesystem::path& fill(std::span<const std::uint8_t> bytes) {
    const auto size = static_cast<off_t>(bytes.size());
    if (::ftruncate(descriptor_, 0) != 0 || ::ftruncate(descriptor_, size) != 0 ||
        ::pwrite(descriptor_, bytes.data(), bytes.size(), 0) != size)
      std::abort();
    return path_;
  }

 private:
  int descriptor_;
  std::filesystem::path path_;
};

}  // namespace bitnet::fuzz
