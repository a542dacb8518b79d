// SPDX-License-Identifier: MIT
#include "core/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "core/base/error.h"
#include "core/base/machine.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void throw_system_error(const fs::path& path, const char* action, int code) {
  throw Error(fmt::format("{}: cannot {}: {}", path.string(), action,
                          std::generic_category().message(code)));
}

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

int open_retrying(const fs::path& path, int flags, mode_t mode = 0) {
  int descriptor;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

// Opens for reading and returns the size; refuses all but regular files. O_NONBLOCK, or a named
// pipe without a writer would block here.
int open_regular(const fs::path& path, std::uint64_t& size) {
  const int descriptor = open_retrying(path, O_RDONLY | O_NONBLOCK);
  if (descriptor < 0) throw_system_error(path, "open for reading", errno);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) {
    const int code = errno;
    ::close(descriptor);
    throw_system_error(path, "read the size", code);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw Error(fmt::format("{}: is {}, expected a regular file", path.string(),
                            S_ISDIR(status.st_mode) ? "a folder" : "a device or pipe"));
  }
  size = static_cast<std::uint64_t>(status.st_size);
  return descriptor;
}

void sync_descriptor(int descriptor, const fs::path& path) {
  int result;
  do {
    result = ::fsync(descriptor);
  } while (result != 0 && errno == EINTR);
  // Some file systems have nothing to flush and say so with EINVAL.
  if (result != 0 && errno != EINVAL && errno != ENOTSUP) {
    throw_system_error(path, "flush to the disk", errno);
  }
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  std::uint64_t size = 0;
  const Descriptor descriptor(open_regular(path, size));
  if (size == 0) return;
  void* address =
      ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
  if (address == MAP_FAILED) throw_system_error(path, "map into memory", errno);
  data_ = static_cast<const std::uint8_t*>(address);
  size_ = static_cast<std::size_t>(size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::uint8_t*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  // The old mapping goes into `other` and is unmapped with it.
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::expect_whole_read() const {
  // A wish: where the file system has no large pages this fails, and nothing is lost.
  if (data_ != nullptr) ::madvise(const_cast<std::uint8_t*>(data_), size_, MADV_HUGEPAGE);
}

std::string read_text_file(const fs::path& path, std::size_t max_bytes) {
  std::uint64_t size = 0;
  const Descriptor descriptor(open_regular(path, size));
  if (size > max_bytes) {
    throw Error(
        fmt::format("{}: is {} bytes long, expected at most {}", path.string(), size, max_bytes));
  }
  std::string text(static_cast<std::size_t>(size), '\0');
  std::size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t count = ::read(descriptor.get(), text.data() + filled, text.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_system_error(path, "read", errno);
    if (count == 0) break;  // it shrank meanwhile
    filled += static_cast<std::size_t>(count);
  }
  text.resize(filled);
  return text;
}

// The process id keeps two programs that write the same path apart.
OutputFile::OutputFile(const fs::path& path) : path_(path), temporary_(path) {
  temporary_ += fmt::format(".tmp-{}", ::getpid());
  descriptor_ = open_retrying(temporary_, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (descriptor_ < 0) throw_system_error(path_, "create", errno);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::write(std::span<const std::uint8_t> bytes) {
  BITNET_CHECK(descriptor_ >= 0, "write to {} after its commit", path_.string());
  constexpr auto kBlock = static_cast<std::size_t>(kLargePage);
  while (!bytes.empty()) {
    const std::size_t count = std::min(bytes.size(), kBlock - pending_.size());
    pending_.insert(pending_.end(), bytes.data(), bytes.data() + count);
    bytes = bytes.subspan(count);
    if (pending_.size() == kBlock) flush();
  }
}

void OutputFile::flush() {
  std::span<const std::uint8_t> bytes = pending_;
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_system_error(path_, "write", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  pending_.clear();
}

void OutputFile::write(std::string_view text) {
  write(std::span(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
}

void OutputFile::commit() {
  BITNET_CHECK(descriptor_ >= 0, "second commit of {}", path_.string());
  flush();
  sync_descriptor(descriptor_, path_);
  if (::close(std::exchange(descriptor_, -1)) != 0) throw_system_error(path_, "close", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw_system_error(path_, "give the finished file its name", errno);
  }
  temporary_.clear();
  sync_folder(folder_of(path_));
}

void write_file(const fs::path& path, std::string_view text) {
  OutputFile file(path);
  file.write(text);
  file.commit();
}

void sync_folder(const fs::path& folder) {
  const Descriptor descriptor(open_retrying(folder, O_RDONLY | O_DIRECTORY));
  if (descriptor.get() < 0) throw_system_error(folder, "open the folder", errno);
  sync_descriptor(descriptor.get(), folder);
}

void make_folders(const fs::path& folder) {
  std::error_code code;
  fs::create_directories(folder, code);
  // Without the second test an existing file of that name would go unnoticed until the first write.
  if (!code && !fs::is_directory(folder, code) && !code) {
    code = std::make_error_code(std::errc::not_a_directory);
  }
  if (code) {
    throw Error(fmt::format("{}: cannot create the folder: {}", folder.string(), code.message()));
  }
}

}  // namespace bitnet
