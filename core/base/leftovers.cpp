// SPDX-License-Identifier: MIT
#include "core/base/leftovers.h"

#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <string>
#include <system_error>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

// "1234" or "1234.…" of a process that is no more.
bool names_dead_process(std::string_view text) {
  const std::string_view id = text.substr(0, text.find('.'));
  pid_t process = 0;
  const auto [end, code] = std::from_chars(id.data(), id.data() + id.size(), process);
  if (code != std::errc() || end != id.data() + id.size() || process <= 0) return false;
  return process == ::getpid() || (::kill(process, 0) != 0 && errno == ESRCH);
}

}  // namespace

std::vector<fs::path> find_leftovers(const fs::path& target, std::string_view suffix) {
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  const std::string prefix = target.filename().string().append(suffix);
  std::vector<fs::path> found;
  std::error_code code;
  for (fs::directory_iterator it(folder, code), end; !code && it != end; it.increment(code)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(prefix) &&
        names_dead_process(std::string_view(name).substr(prefix.size())))
      found.push_back(it->path());
  }
  return found;
}

void remove_leftovers(const fs::path& target, std::string_view suffix) {
  std::error_code ignored;
  for (const fs::path& path : find_leftovers(target, suffix)) fs::remove_all(path, ignored);
}

}  // namespace bitnet
