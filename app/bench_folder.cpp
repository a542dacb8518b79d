// SPDX-License-Identifier: MIT
// A folder that is in use is locked by its process; the system drops the lock when that ends,
// however it ends. (Numbers of processes would tell less: they are used again, and one container
// does not see those of another.)
#include "app/bench_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>

#include "core/base/error.h"

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "bitnet-bench-";

// A descriptor that holds the lock of a folder of this user; -1 when it is in use, not ours or
// gone.
int lock_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0) return -1;
  struct stat opened {
  }, named{};
  // It may have been deleted between the two calls.
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0 && ::fstat(descriptor, &opened) == 0 &&
      ::lstat(folder.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
      opened.st_uid == ::geteuid())
    return descriptor;
  ::close(descriptor);
  return -1;
}

void delete_leftovers(const fs::path& temporary) {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(temporary, ignored)) {
    if (!entry.path().filename().string().starts_with(kPrefix)) continue;
    const int lock = lock_folder(entry.path());
    if (lock < 0) continue;
    fs::remove_all(entry.path(), ignored);
    ::close(lock);
  }
}

}  // namespace

BenchFolder::BenchFolder() {
  std::error_code error;
  const fs::path temporary = fs::temp_directory_path(error);
  if (error)
    throw Error(
        fmt::format("there is no folder for temporary files: {}; set TMPDIR to a writable "
                    "one",
                    error.message()));
  delete_leftovers(temporary);
  // Another process that deletes leftovers may take the new folder for one, until it is locked.
  for (int attempt = 0; attempt < 10 && lock_ < 0; ++attempt) {
    std::string name = (temporary / (std::string(kPrefix) + "XXXXXX")).string();
    if (::mkdtemp(name.data()) == nullptr)
      throw Error(
          fmt::format("{}: cannot make a temporary folder: {}; set TMPDIR to a writable one", name,
                      std::generic_category().message(errno)));
    path_ = name;
    lock_ = lock_folder(path_);
  }
  if (lock_ < 0)
    throw Error(fmt::format("{}: cannot lock a temporary folder; set TMPDIR to one on a local disk",
                            path_.string()));
}

BenchFolder::~BenchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  ::close(lock_);
}

}  // namespace bitnet
